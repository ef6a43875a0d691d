#define _GNU_SOURCE
#include "conn.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };
enum { ACK = 1, END_HEADERS = 4 };
enum { ENABLE_CONNECT_PROTOCOL = 8, INITIAL_WINDOW_SIZE = 4, MAX_FRAME_SIZE = 5 };

#define FRAME_HEADER 9
#define MAX_FRAME 16384
#define WINDOW 0x7fffffff
#define WINDOW_STEP (64 << 20)

struct h2 {
  uint8_t in[1 << 16];
  size_t in_at, in_end;
  uint8_t head[FRAME_HEADER];
  size_t head_held;
  size_t left;          // of the frame that is being read
  uint8_t control[512]; // the start of its payload, unless it is DATA
  size_t control_held;
  uint8_t out[1 << 17];
  size_t out_at, out_end;
  int64_t stream_window, session_window, initial_window;
  int64_t consumed;
  int may_connect, status;
};

struct conn {
  int fd;
  SSL *ssl;
  struct h2 *h2;
};

_Noreturn void die(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  _exit(1);
}

char *handshake_for(const char *template, int peer) {
  char *text = malloc(strlen(template) + 64), *to = text;
  for (const char *from = template; *from != 0;) {
    if (strncmp(from, "{peer}", 6) == 0) {
      to += sprintf(to, "%d", peer);
      from += 6;
    } else if (strncmp(from, "{pair}", 6) == 0) {
      to += sprintf(to, "%d", peer / 2);
      from += 6;
    } else {
      *to++ = *from++;
    }
  }
  *to = 0;
  return text;
}

// What lies below HTTP/2: TCP or TLS.

static size_t lower_read(struct conn *c, uint8_t *to, size_t size) {
  if (c->ssl != NULL) {
    int got = SSL_read(c->ssl, to, size);
    if (got > 0) return got;
    int error = SSL_get_error(c->ssl, got);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
    die("TLS: error %d, %s", error, ERR_error_string(ERR_get_error(), NULL));
  }
  ssize_t got = read(c->fd, to, size);
  if (got > 0) return got;
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  die("the relay ended a tunnel: %s", got == 0 ? "end of stream" : strerror(errno));
}

static size_t lower_write(struct conn *c, const uint8_t *from, size_t size) {
  if (size == 0) return 0;
  if (c->ssl != NULL) {
    int put = SSL_write(c->ssl, from, size);
    if (put > 0) return put;
    int error = SSL_get_error(c->ssl, put);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
    die("TLS: error %d, %s", error, ERR_error_string(ERR_get_error(), NULL));
  }
  ssize_t put = send(c->fd, from, size, MSG_NOSIGNAL);
  if (put >= 0) return put;
  if (errno == EAGAIN || errno == EINTR) return 0;
  die("the relay broke a tunnel: %s", strerror(errno));
}

static void wait_for(struct conn *c, short events) {
  struct pollfd poll_fd = { c->fd, events, 0 };
  if (poll(&poll_fd, 1, 10000) == 0) die("nothing happened for 10 s");
}

// HTTP/2: as much as one stream with extended CONNECT needs, see RFC 9113 and RFC 8441.

static void h2_flush(struct conn *c) {
  struct h2 *h = c->h2;
  h->out_at += lower_write(c, h->out + h->out_at, h->out_end - h->out_at);
  if (h->out_at == h->out_end) h->out_at = h->out_end = 0;
}

static void h2_frame(struct h2 *h, int type, int flags, uint32_t stream, const void *payload, size_t length) {
  if (h->out_end + FRAME_HEADER + length > sizeof h->out) die("HTTP/2: no room for a frame");
  uint8_t *to = h->out + h->out_end;
  uint8_t head[FRAME_HEADER] = { length >> 16, length >> 8, length, type, flags, stream >> 24, stream >> 16, stream >> 8, stream };
  memcpy(to, head, FRAME_HEADER);
  memcpy(to + FRAME_HEADER, payload, length);
  h->out_end += FRAME_HEADER + length;
}

static uint32_t read32(const uint8_t *from) {
  return (uint32_t) from[0] << 24 | from[1] << 16 | from[2] << 8 | from[3];
}

static void h2_update_window(struct h2 *h, uint32_t stream, uint32_t by) {
  uint32_t value = htonl(by);
  h2_frame(h, WINDOW_UPDATE, 0, stream, &value, 4);
}

static void h2_control(struct h2 *h) {
  int type = h->head[3], flags = h->head[4];
  uint32_t stream = read32(h->head + 5);
  const uint8_t *payload = h->control;
  switch (type) {
    case SETTINGS:
      if (flags & ACK) return;
      for (size_t at = 0; at + 6 <= h->control_held; at += 6) {
        int id = payload[at] << 8 | payload[at + 1];
        uint32_t value = read32(payload + at + 2);
        if (id == ENABLE_CONNECT_PROTOCOL) h->may_connect = value;
        if (id == INITIAL_WINDOW_SIZE) {
          h->stream_window += (int64_t) value - h->initial_window;
          h->initial_window = value;
        }
      }
      return h2_frame(h, SETTINGS, ACK, 0, "", 0);
    case PING:
      if (!(flags & ACK)) h2_frame(h, PING, ACK, 0, payload, 8);
      return;
    case WINDOW_UPDATE:
      if (stream == 0) h->session_window += read32(payload);
      else h->stream_window += read32(payload);
      return;
    case HEADERS:
      // An indexed :status 200, which all encoders use, maybe behind a change of the table's size.
      h->status = payload[0] == 0x88 || payload[1] == 0x88 ? 200 : -1;
      return;
    case RST_STREAM: die("HTTP/2: RST_STREAM, code %u", read32(payload));
    case GOAWAY: die("HTTP/2: GOAWAY, code %u", read32(payload + 4));
  }
}

static size_t h2_read(struct conn *c, uint8_t *to, size_t size) {
  struct h2 *h = c->h2;
  size_t done = 0;
  while (done < size) {
    if (h->in_at == h->in_end) {
      h->in_at = 0;
      h->in_end = lower_read(c, h->in, sizeof h->in);
      if (h->in_end == 0) break;
    }
    if (h->left == 0) {
      while (h->head_held < FRAME_HEADER && h->in_at < h->in_end) h->head[h->head_held++] = h->in[h->in_at++];
      if (h->head_held < FRAME_HEADER) continue;
      h->left = h->head[0] << 16 | h->head[1] << 8 | h->head[2];
      h->control_held = 0;
    }
    size_t part = h->in_end - h->in_at < h->left ? h->in_end - h->in_at : h->left;
    if (h->head[3] == DATA) {
      if (part > size - done) part = size - done;
      memcpy(to + done, h->in + h->in_at, part);
      done += part;
      h->consumed += part;
    } else {
      size_t kept = part < sizeof h->control - h->control_held ? part : sizeof h->control - h->control_held;
      memcpy(h->control + h->control_held, h->in + h->in_at, kept);
      h->control_held += kept;
    }
    h->in_at += part;
    h->left -= part;
    if (h->left > 0) continue;
    h->head_held = 0;
    if (h->head[3] != DATA) h2_control(h);
  }
  if (h->consumed >= WINDOW_STEP) {
    h2_update_window(h, 0, h->consumed);
    h2_update_window(h, 1, h->consumed);
    h->consumed = 0;
  }
  h2_flush(c);
  return done;
}

static size_t h2_write(struct conn *c, const uint8_t *from, size_t size) {
  struct h2 *h = c->h2;
  h2_flush(c);
  if (h->out_end > 0) return 0;
  size_t done = 0;
  while (done < size && h->out_end + FRAME_HEADER + MAX_FRAME < sizeof h->out / 2) {
    int64_t window = h->stream_window < h->session_window ? h->stream_window : h->session_window;
    size_t part = size - done < MAX_FRAME ? size - done : MAX_FRAME;
    if (window <= 0) break;
    if ((int64_t) part > window) part = window;
    h2_frame(h, DATA, 0, 1, from + done, part);
    h->stream_window -= part;
    h->session_window -= part;
    done += part;
  }
  h2_flush(c);
  return done;
}

static size_t put_string(uint8_t *to, const char *text, size_t length) {
  if (length > 126) die("HTTP/2: a header of more than 126 bytes");
  to[0] = length;
  memcpy(to + 1, text, length);
  return length + 1;
}

static void h2_handshake(struct conn *c, char *headers) {
  static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  struct h2 *h = c->h2 = calloc(1, sizeof *h);
  h->stream_window = h->session_window = h->initial_window = 65535;
  memcpy(h->out, preface, sizeof preface - 1);
  h->out_end = sizeof preface - 1;
  const uint8_t settings[] = { 0, INITIAL_WINDOW_SIZE, WINDOW >> 24, 0xff, 0xff, 0xff };
  h2_frame(h, SETTINGS, 0, 0, settings, sizeof settings);
  h2_update_window(h, 0, WINDOW - 65535);
  h2_flush(c);
  uint8_t none[1];
  while (!h->may_connect) {
    wait_for(c, POLLIN);
    h2_read(c, none, 1);
  }
  uint8_t block[1024];
  size_t length = 0;
  char *rest;
  for (char *line = strtok_r(headers, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    char *space = strchr(line, ' ');
    block[length++] = 0; // literal, not indexed, new name
    length += put_string(block + length, line, space - line);
    length += put_string(block + length, space + 1, strlen(space + 1));
  }
  h2_frame(h, HEADERS, END_HEADERS, 1, block, length);
  h2_flush(c);
  // Nothing is read beyond the headers: no byte of the tunnel comes before this side has written.
  while (h->status == 0) {
    wait_for(c, POLLIN);
    if (h2_read(c, none, 1) > 0) die("HTTP/2: a tunnel's bytes came too early");
  }
  if (h->status != 200) die("HTTP/2: refused");
}

static void http1_handshake(struct conn *c, const char *request) {
  conn_write_all(c, (const uint8_t *) request, strlen(request));
  char head[4096] = "";
  size_t length = 0;
  while (length < 4 || memcmp(head + length - 4, "\r\n\r\n", 4) != 0) {
    if (length == sizeof head - 1) die("too long an answer: %s", head);
    size_t got = lower_read(c, (uint8_t *) head + length, 1);
    if (got == 0) wait_for(c, POLLIN);
    length += got;
    head[length] = 0;
  }
  if (strncmp(head, "HTTP/1.1 101 ", 13) != 0) die("refused: %s", head);
}

static struct conn *conn_new(int fd, int tls, int http2, int is_server) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct conn *c = calloc(1, sizeof *c);
  c->fd = fd;
  if (tls) {
    static SSL_CTX *contexts[2];
    SSL_CTX *context = contexts[is_server];
    if (context == NULL) {
      context = contexts[is_server] = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
      SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
      SSL_CTX_set_num_tickets(context, 0);
      // Of a TLS sink; nobody checks it.
      if (is_server && (SSL_CTX_use_certificate_file(context, getenv("LOAD_CERTIFICATE"), SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, getenv("LOAD_KEY"), SSL_FILETYPE_PEM) != 1)) die("cannot read the files LOAD_CERTIFICATE and LOAD_KEY");
    }
    c->ssl = SSL_new(context);
    SSL_set_fd(c->ssl, fd);
    if (http2) SSL_set_alpn_protos(c->ssl, (const unsigned char *) "\2h2", 3);
    if ((is_server ? SSL_accept(c->ssl) : SSL_connect(c->ssl)) != 1) die("TLS: %s", ERR_error_string(ERR_get_error(), NULL));
  }
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  return c;
}

struct conn *conn_open(const struct endpoint *to, int peer) {
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(to->port) };
  inet_pton(AF_INET, to->host, &address.sin_addr);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // One that has just been started gets 5 s.
  for (int i = 0; i < 500 && connect(fd, (struct sockaddr *) &address, sizeof address) != 0 && errno == ECONNREFUSED; i++) usleep(10000);
  struct sockaddr_in peer_address;
  if (getpeername(fd, (struct sockaddr *) &peer_address, &(socklen_t) { sizeof peer_address }) != 0) die("cannot connect to port %d: %s", to->port, strerror(errno));
  struct conn *c = conn_new(fd, to->tls, to->http2, 0);
  if (*to->handshake != 0) {
    char *text = handshake_for(to->handshake, peer);
    if (to->http2) h2_handshake(c, text);
    else http1_handshake(c, text);
    free(text);
  }
  return c;
}

int listen_on(int port) {
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *) &address, sizeof address) != 0 || listen(fd, 100) != 0) die("cannot listen on %d: %s", port, strerror(errno));
  return fd;
}

struct conn *conn_accept(int listener, int tls) {
  struct pollfd poll_fd = { listener, POLLIN, 0 };
  if (poll(&poll_fd, 1, 10000) != 1) die("the relay did not connect to the sink");
  return conn_new(accept4(listener, NULL, NULL, SOCK_CLOEXEC), tls, 0, 1);
}

int conn_fd(const struct conn *c) {
  return c->fd;
}

size_t conn_read(struct conn *c, uint8_t *to, size_t size) {
  return c->h2 != NULL ? h2_read(c, to, size) : lower_read(c, to, size);
}

int conn_pending(const struct conn *c) {
  return (c->h2 != NULL && c->h2->in_at < c->h2->in_end) || (c->ssl != NULL && SSL_has_pending(c->ssl));
}

size_t conn_write(struct conn *c, const uint8_t *from, size_t size) {
  return c->h2 != NULL ? h2_write(c, from, size) : lower_write(c, from, size);
}

void conn_write_all(struct conn *c, const uint8_t *from, size_t size) {
  while (size > 0) {
    size_t put = conn_write(c, from, size);
    if (put == 0) wait_for(c, POLLOUT);
    from += put;
    size -= put;
  }
}
