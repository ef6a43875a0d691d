#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// A connection of the load generator: plain TCP, TLS, or one HTTP/2 stream over either.

struct endpoint {
  const char *host;
  int port;
  int tls;
  // Sent once connected, with {peer} and {pair} replaced by numbers. HTTP/1.1: the request as it is; HTTP/2: a line
  // "name value" for each header. Empty: nothing is said, and no answer awaited.
  const char *handshake;
  int http2;
};

struct conn;

_Noreturn void die(const char *format, ...);

// The handshake's text for this peer; peers 2n and 2n + 1 are pair n.
char *handshake_for(const char *template, int peer);

// Connects and does the handshake, blocking; what comes after does not block.
struct conn *conn_open(const struct endpoint *to, int peer);

int listen_on(int port);
struct conn *conn_accept(int listener, int tls);

int conn_fd(const struct conn *c);

// Returns 0 when there is nothing to read now. The end of the stream ends the program.
size_t conn_read(struct conn *c, uint8_t *to, size_t size);

// Whether bytes are held above the socket, which epoll cannot know of.
int conn_pending(const struct conn *c);

// Returns how many bytes were taken, 0 when none can be now.
size_t conn_write(struct conn *c, const uint8_t *from, size_t size);
void conn_write_all(struct conn *c, const uint8_t *from, size_t size);
