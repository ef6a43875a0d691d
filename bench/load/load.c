// Load generator and sink of the benches, in one process, which therefore sees both ends of what it measures.
//
//   load flow     one source, one or more sinks: what gets through a relay
//   load latency  a ping-pong between two tunnels, alone or beside the flow of two more
//   load echo     datagrams to a UDP port that come back, through a tunnel or not
//   load open     opens tunnels and holds them until stdin ends
//
// The arguments are "name=value", see `settings`. Prints one line of JSON. The relay's CPU is read here, so that it covers the
// measured time and nothing else.

#define _GNU_SOURCE
#include "conn.h"
#include "framing.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_SINKS 64
#define MAX_PIDS 8
#define READ_SIZE (256 << 10)
#define WRITE_SIZE (256 << 10)
#define PATTERN_SIZE (1 << 20)
#define MAX_SAMPLES 1000000
// The receiver index of messages to the source; to the nth sink it is n, from 1 on.
#define SOURCE_INDEX 0

static struct {
  struct endpoint relay;
  const char *sink_handshake; // NULL: the same as the source's
  const char *background;     // the handshake of the second pair of tunnels
  int sink_port;              // where sinks are connected to by a proxy; 0: they connect to the relay themselves
  int sink_tls;
  enum framing source, sink;
  int sinks;
  int has_sessions;           // a WireGuard handshake with each sink first
  int min_size, max_size;     // of a message; evenly distributed between them
  double rate;                // datagrams a second; 0: as many as get through
  int burst;                  // how many of them leave at once
  double warm_up, seconds;
  int udp_port, window;       // of `echo`: how many datagrams are under way
  int count, concurrency;     // of `open`
  int sources;                // source addresses of `open`
  pid_t pids[MAX_PIDS];       // the relay's processes
  int pid_count;
} settings = {
  .relay = { .host = "127.0.0.1", .handshake = "" }, .source = RAW, .sink = RAW, .sinks = 1, .min_size = 64, .max_size = 1420,
  .burst = 1, .warm_up = 0.15, .seconds = 0.45, .window = 64, .concurrency = 100, .sources = 20
};

static uint8_t buffer[READ_SIZE];

static double seconds_of(clockid_t clock) {
  struct timespec now;
  if (clock_gettime(clock, &now) != 0) die("clock_gettime: %s", strerror(errno));
  return now.tv_sec + now.tv_nsec / 1e9;
}

static double now(void) {
  return seconds_of(CLOCK_MONOTONIC);
}

// The measured time begins when the warm-up was seen to be over, however late that is on a busy machine.
static int is_over(double started, double time) {
  return started > 0 && time >= started + settings.seconds;
}

// What the relay's processes have used, all their threads included.
static double relay_cpu(void) {
  double sum = 0;
  for (int i = 0; i < settings.pid_count; i++) {
    clockid_t clock;
    if (clock_getcpuclockid(settings.pids[i], &clock) != 0) die("process %d is gone", settings.pids[i]);
    sum += seconds_of(clock);
  }
  return sum;
}

static struct counter sink_counter(void) {
  return (struct counter) { .framing = settings.sink };
}

// Messages

static uint32_t next_random(void) {
  static uint32_t state = 1;
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

// A WireGuard message; one for the nth sink is transport data with receiver index n.
static void make_message(uint8_t *to, int type, size_t size, uint32_t sender, uint32_t receiver) {
  for (size_t i = 0; i < size; i++) to[i] = next_random();
  to[0] = type;
  to[1] = to[2] = to[3] = 0;
  if (type == TRANSPORT_DATA) memcpy(to + 4, &receiver, 4);
  else memcpy(to + 4, &sender, 4);
  if (type == 2) memcpy(to + 8, &receiver, 4);
}

static size_t message_frame(uint8_t *to, int number) {
  static uint8_t message[1 << 17];
  size_t size = settings.min_size + next_random() % (settings.max_size - settings.min_size + 1);
  make_message(message, TRANSPORT_DATA, size, 0, number % settings.sinks + 1);
  return frame_put(settings.source, to, message, size);
}

// A source writes the same frames again and again.
struct source {
  struct conn *conn;
  uint8_t *pattern;
  size_t length, at;
  uint32_t *ends;   // of each frame in the pattern
  uint64_t bytes;
  int frames, next; // where there is a rate: the next frame,
  uint64_t due;     // how many frames were due so far,
  size_t owed;      // and the bytes of them that were not taken yet
  double started;
};

static void make_source(struct source *s, struct conn *conn) {
  memset(s, 0, sizeof *s);
  s->conn = conn;
  s->pattern = malloc(PATTERN_SIZE + (1 << 17));
  s->ends = malloc(sizeof *s->ends * PATTERN_SIZE / 32);
  // A whole number of turns over all sinks.
  while (s->length < PATTERN_SIZE || s->frames % settings.sinks != 0) {
    s->length += message_frame(s->pattern + s->length, s->frames);
    s->ends[s->frames++] = s->length;
    if (s->frames >= PATTERN_SIZE / 32) die("too small frames");
  }
  s->started = now();
}

// Returns how many bytes were taken.
static size_t source_write(struct source *s, size_t limit) {
  size_t put = conn_write(s->conn, s->pattern + s->at, s->length - s->at < limit ? s->length - s->at : limit);
  s->at = (s->at + put) % s->length;
  s->bytes += put;
  return put;
}

// Writes what the rate says is due by now: each burst in a write of its own, as an endpoint would.
static void source_keep_rate(struct source *s) {
  uint64_t due = (now() - s->started) * settings.rate;
  for (;;) {
    for (size_t put = 1; s->owed > 0 && put > 0; s->owed -= put) put = source_write(s, s->owed);
    if (s->due + settings.burst > due) return;
    for (int i = 0; i < settings.burst; i++, s->due++, s->next = (s->next + 1) % s->frames) {
      s->owed += s->ends[s->next] - (s->next == 0 ? 0 : s->ends[s->next - 1]);
    }
  }
}

// Tunnels

static struct conn *open_sink(int number, int listener) {
  if (listener >= 0) return conn_accept(listener, settings.sink_tls);
  struct endpoint to = settings.relay;
  if (settings.sink_handshake != NULL) to.handshake = settings.sink_handshake;
  return conn_open(&to, number);
}

static void read_exactly(struct conn *c, size_t size) {
  double deadline = now() + 5;
  for (size_t got = 0; got < size;) {
    got += conn_read(c, buffer + got, size - got);
    if (now() > deadline) die("a handshake message did not come: %zu bytes of %zu", got, size);
  }
}

static size_t framed_size(enum framing framing, size_t size) {
  if (framing == WEBSOCKET) return size + (size < 126 ? 2 : 4);
  return framing == LEN16 ? size + 2 : size;
}

// One initiation, which goes to all sinks because none has a public key, and the response of each.
static void make_sessions(struct conn *source, struct conn **sinks) {
  uint8_t message[148], frame[256];
  make_message(message, 1, 148, SOURCE_INDEX, 0);
  conn_write_all(source, frame, frame_put(settings.source, frame, message, 148));
  for (int i = 0; i < settings.sinks; i++) {
    read_exactly(sinks[i], framed_size(settings.sink, 148));
    make_message(message, 2, 92, i + 1, SOURCE_INDEX);
    conn_write_all(sinks[i], frame, frame_put(settings.sink, frame, message, 92));
  }
  read_exactly(source, framed_size(settings.source, 92) * settings.sinks);
}

static int poller;

static void watch(struct conn *c, uint32_t events) {
  struct epoll_event event = { .events = events, .data.ptr = c };
  if (epoll_ctl(poller, EPOLL_CTL_ADD, conn_fd(c), &event) != 0) die("epoll_ctl: %s", strerror(errno));
}

static size_t read_into(struct conn *c, struct counter *counter) {
  size_t got = conn_read(c, buffer, sizeof buffer);
  count(counter, buffer, got);
  return got;
}

// `flow`

static struct counter total(const struct counter *counters) {
  struct counter sum = { 0 };
  for (int i = 0; i < settings.sinks; i++) {
    sum.datagrams += counters[i].datagrams;
    sum.bytes += counters[i].bytes;
  }
  return sum;
}

static void flow(void) {
  struct source source;
  struct conn *sinks[MAX_SINKS];
  struct counter counters[MAX_SINKS];
  int listener = settings.sink_port == 0 ? -1 : listen_on(settings.sink_port);
  make_source(&source, conn_open(&settings.relay, 0));
  for (int i = 0; i < settings.sinks; i++) {
    sinks[i] = open_sink(i + 1, listener);
    counters[i] = sink_counter();
  }
  if (settings.has_sessions) make_sessions(source.conn, sinks);
  for (int i = 0; i < settings.sinks; i++) watch(sinks[i], EPOLLIN);
  watch(source.conn, EPOLLIN | (settings.rate == 0 ? EPOLLOUT : 0));
  source.started = now();
  double begin = now() + settings.warm_up;
  double started = 0, cpu = 0, load_cpu = 0;
  uint64_t sent = 0;
  struct counter before = { 0 };
  int is_pending = 0;
  for (;;) {
    double time = now();
    if (started == 0 && time >= begin) {
      started = time;
      cpu = relay_cpu();
      load_cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
      before = total(counters);
      sent = source.bytes;
    }
    if (is_over(started, time)) break;
    struct epoll_event events[MAX_SINKS + 1];
    int count = epoll_wait(poller, events, MAX_SINKS + 1, settings.rate > 0 || is_pending ? 0 : 10);
    for (int i = 0; i < count; i++) {
      if (events[i].data.ptr != source.conn) continue;
      if (events[i].events & EPOLLIN) conn_read(source.conn, buffer, sizeof buffer);
      if (events[i].events & EPOLLOUT) source_write(&source, WRITE_SIZE);
    }
    if (settings.rate > 0) source_keep_rate(&source);
    is_pending = 0;
    for (int i = 0; i < count; i++) {
      for (int k = 0; k < settings.sinks; k++) {
        if (events[i].data.ptr == sinks[k]) read_into(sinks[k], &counters[k]);
      }
    }
    for (int k = 0; k < settings.sinks; k++) {
      if (!conn_pending(sinks[k])) continue;
      read_into(sinks[k], &counters[k]);
      is_pending = 1;
    }
  }
  double seconds = now() - started;
  struct counter after = total(counters);
  printf("{\"seconds\":%.6f,\"datagrams\":%lu,\"bytes\":%lu,\"sent\":%lu,\"cpu\":%.6f,\"loadCpu\":%.6f}\n", seconds,
    after.datagrams - before.datagrams, after.bytes - before.bytes, source.bytes - sent, relay_cpu() - cpu,
    seconds_of(CLOCK_PROCESS_CPUTIME_ID) - load_cpu);
}

// `latency`

static int by_value(const void *a, const void *b) {
  float x = *(const float *) a, y = *(const float *) b;
  return (x > y) - (x < y);
}

static void latency(void) {
  static float samples[MAX_SAMPLES];
  struct source source;
  struct conn *ends[2], *other = NULL;
  struct counter counters[2] = { sink_counter(), sink_counter() }, other_counter = sink_counter();
  int listener = settings.sink_port == 0 ? -1 : listen_on(settings.sink_port);
  ends[0] = conn_open(&settings.relay, 0);
  ends[1] = open_sink(1, listener);
  if (settings.has_sessions) make_sessions(ends[0], &ends[1]);
  for (int i = 0; i < 2; i++) watch(ends[i], EPOLLIN);
  if (settings.rate > 0) {
    if (settings.background != NULL) {
      settings.relay.handshake = settings.background;
      settings.sink_handshake = NULL;
    }
    make_source(&source, conn_open(&settings.relay, 0));
    other = open_sink(1, listener);
    if (settings.has_sessions) make_sessions(source.conn, &other);
    watch(source.conn, EPOLLIN);
    watch(other, EPOLLIN);
    source.started = now();
  }
  uint8_t message[128], ping[256], pong[256];
  make_message(message, TRANSPORT_DATA, sizeof message, 0, 1);
  size_t ping_length = frame_put(settings.source, ping, message, sizeof message);
  make_message(message, TRANSPORT_DATA, sizeof message, 0, SOURCE_INDEX);
  size_t pong_length = frame_put(settings.sink, pong, message, sizeof message);
  double begin = now() + settings.warm_up, started = 0, cpu = 0, sent_at = now();
  uint64_t bytes = 0;
  int rounds = 0;
  conn_write_all(ends[0], ping, ping_length);
  for (;;) {
    double time = now();
    if (started == 0 && time >= begin) {
      started = time;
      cpu = relay_cpu();
      bytes = other_counter.bytes;
    }
    if (is_over(started, time) || rounds == MAX_SAMPLES) break;
    struct epoll_event events[4];
    int count = epoll_wait(poller, events, 4, 0);
    for (int i = 0; i < count; i++) {
      struct conn *c = events[i].data.ptr;
      if (c != ends[0] && c != ends[1]) {
        read_into(c, &other_counter);
        continue;
      }
      int side = c == ends[1];
      struct counter *counter = &counters[side];
      read_into(c, counter);
      if (counter->framing == RAW ? counter->bytes < sizeof message : counter->datagrams == 0 || counter->skip > 0) continue;
      counter->bytes = counter->datagrams = 0;
      if (side == 0) {
        double arrived = now();
        if (started > 0) samples[rounds++] = (arrived - sent_at) * 1e6;
        sent_at = now();
      }
      conn_write_all(c, side == 0 ? ping : pong, side == 0 ? ping_length : pong_length);
    }
    if (settings.rate > 0) source_keep_rate(&source);
  }
  double seconds = now() - started;
  if (rounds == 0) die("no round trip");
  qsort(samples, rounds, sizeof *samples, by_value);
  printf("{\"seconds\":%.6f,\"roundTrips\":%d,\"p50\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"background\":%lu,\"cpu\":%.6f}\n", seconds, rounds,
    samples[rounds / 2], samples[rounds * 99 / 100], samples[rounds / 1000 * 999 + rounds % 1000 * 999 / 1000], other_counter.bytes - bytes, relay_cpu() - cpu);
}

// `echo`

// Waits until a program that has just been started sends a datagram back.
static void await_echo(int udp, const uint8_t *datagram, size_t size, struct conn *tunnel) {
  for (int i = 0; i < 500; i++) {
    send(udp, datagram, size, 0);
    usleep(10000);
    if (tunnel != NULL) conn_write_all(tunnel, buffer, conn_read(tunnel, buffer, sizeof buffer));
    if (recv(udp, buffer, sizeof buffer, MSG_DONTWAIT) > 0) return;
  }
  die("no datagram came back from port %d", settings.udp_port);
}

// How many are under way is kept constant, so that none is lost.
static void echo(void) {
  struct conn *tunnel = *settings.relay.handshake == 0 ? NULL : conn_open(&settings.relay, 0);
  struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(settings.udp_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), size = 4 << 20;
  setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  if (connect(udp, (struct sockaddr *) &to, sizeof to) != 0) die("connect: %s", strerror(errno));
  static uint8_t datagrams[1024][1500];
  size_t sizes[1024];
  for (int i = 0; i < 1024; i++) {
    sizes[i] = settings.min_size + next_random() % (settings.max_size - settings.min_size + 1);
    make_message(datagrams[i], TRANSPORT_DATA, sizes[i], 0, 1);
  }
  await_echo(udp, datagrams[0], sizes[0], tunnel);
  double begin = now() + settings.warm_up, started = 0, cpu = 0, last = now();
  uint64_t echoed = 0, before = 0, lost = 0;
  unsigned next = 0;
  int under_way = 0;
  for (;;) {
    double time = now();
    if (started == 0 && time >= begin) {
      started = time;
      cpu = relay_cpu();
      before = echoed;
      lost = 0;
    }
    if (is_over(started, time)) break;
    if (time - last > 0.1) {
      lost += under_way;
      under_way = 0;
      last = time;
    }
    for (; under_way < settings.window; under_way++, next++) send(udp, datagrams[next % 1024], sizes[next % 1024], 0);
    if (tunnel != NULL) conn_write_all(tunnel, buffer, conn_read(tunnel, buffer, sizeof buffer));
    for (; recv(udp, buffer, sizeof buffer, MSG_DONTWAIT) > 0; echoed++, last = time) under_way -= under_way > 0;
  }
  printf("{\"seconds\":%.6f,\"echoed\":%lu,\"lost\":%lu,\"cpu\":%.6f}\n", now() - started, echoed - before, lost, relay_cpu() - cpu);
}

// `open`

struct opening {
  int fd;
  char *request;
  size_t answered;
  char head[1024];
};

static void begin_opening(struct opening *o, int number) {
  struct sockaddr_in from = { .sin_family = AF_INET }, to = { .sin_family = AF_INET, .sin_port = htons(settings.relay.port) };
  from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + number % settings.sources);
  inet_pton(AF_INET, settings.relay.host, &to.sin_addr);
  int on = 1;
  struct linger reset = { 1, 0 }; // nothing is left behind that would hold the port
  o->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (o->fd < 0) die("socket: %s (ulimit -n)", strerror(errno));
  setsockopt(o->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  setsockopt(o->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  if (bind(o->fd, (struct sockaddr *) &from, sizeof from) != 0) die("bind: %s", strerror(errno));
  if (connect(o->fd, (struct sockaddr *) &to, sizeof to) != 0 && errno != EINPROGRESS) die("connect: %s", strerror(errno));
  o->request = handshake_for(settings.relay.handshake, number);
  o->answered = 0;
  struct epoll_event event = { .events = EPOLLOUT, .data.ptr = o };
  epoll_ctl(poller, EPOLL_CTL_ADD, o->fd, &event);
}

// Returns whether the tunnel is open.
static int go_on_opening(struct opening *o, uint32_t events) {
  if (o->request != NULL) {
    if (!(events & EPOLLOUT)) die("a connection was refused");
    if (write(o->fd, o->request, strlen(o->request)) <= 0) die("write: %s", strerror(errno));
    free(o->request);
    o->request = NULL;
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = o };
    epoll_ctl(poller, EPOLL_CTL_MOD, o->fd, &event);
    return 0;
  }
  ssize_t got = read(o->fd, o->head + o->answered, sizeof o->head - 1 - o->answered);
  if (got <= 0) die("the relay ended handshake: %s", strerror(errno));
  o->answered += got;
  o->head[o->answered] = 0;
  if (strstr(o->head, "\r\n\r\n") == NULL) return 0;
  if (strncmp(o->head, "HTTP/1.1 101 ", 13) != 0) die("refused: %s", o->head);
  epoll_ctl(poller, EPOLL_CTL_DEL, o->fd, NULL);
  return 1;
}

// HTTP/1.1 without TLS: many handshakes at a time.
static void open_together(void) {
  struct opening *openings = calloc(settings.concurrency, sizeof *openings);
  int begun = 0, opened = 0;
  while (begun < settings.concurrency && begun < settings.count) {
    begin_opening(&openings[begun], begun);
    begun++;
  }
  while (opened < settings.count) {
    struct epoll_event events[64];
    int count = epoll_wait(poller, events, 64, 10000);
    if (count == 0) die("only %d tunnels were opened", opened);
    for (int i = 0; i < count; i++) {
      if (!go_on_opening(events[i].data.ptr, events[i].events)) continue;
      opened++;
      if (begun < settings.count) begin_opening(events[i].data.ptr, begun++);
    }
  }
}

static void open_many(void) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  double started = now(), cpu = relay_cpu();
  if (settings.relay.http2) for (int i = 0; i < settings.count; i++) conn_open(&settings.relay, i);
  else open_together();
  printf("{\"opened\":%d,\"seconds\":%.6f,\"cpu\":%.6f}\n", settings.count, now() - started, relay_cpu() - cpu);
  fflush(stdout);
  while (read(0, buffer, sizeof buffer) > 0);
}

static int set(const char *name, const char *value) {
  if (strcmp(name, "port") == 0) settings.relay.port = atoi(value);
  else if (strcmp(name, "handshake") == 0) settings.relay.handshake = value;
  else if (strcmp(name, "sinkHandshake") == 0) settings.sink_handshake = value;
  else if (strcmp(name, "tls") == 0) settings.relay.tls = atoi(value);
  else if (strcmp(name, "http2") == 0) settings.relay.http2 = atoi(value);
  else if (strcmp(name, "background") == 0) settings.background = value;
  else if (strcmp(name, "sinkPort") == 0) settings.sink_port = atoi(value);
  else if (strcmp(name, "sinkTls") == 0) settings.sink_tls = atoi(value);
  else if (strcmp(name, "source") == 0) settings.source = framing_named(value);
  else if (strcmp(name, "sink") == 0) settings.sink = framing_named(value);
  else if (strcmp(name, "sinks") == 0) settings.sinks = atoi(value);
  else if (strcmp(name, "hasSessions") == 0) settings.has_sessions = atoi(value);
  else if (strcmp(name, "minSize") == 0) settings.min_size = atoi(value);
  else if (strcmp(name, "maxSize") == 0) settings.max_size = atoi(value);
  else if (strcmp(name, "rate") == 0) settings.rate = atof(value);
  else if (strcmp(name, "burst") == 0) settings.burst = atoi(value);
  else if (strcmp(name, "warmUp") == 0) settings.warm_up = atof(value);
  else if (strcmp(name, "seconds") == 0) settings.seconds = atof(value);
  else if (strcmp(name, "udpPort") == 0) settings.udp_port = atoi(value);
  else if (strcmp(name, "window") == 0) settings.window = atoi(value);
  else if (strcmp(name, "count") == 0) settings.count = atoi(value);
  else if (strcmp(name, "concurrency") == 0) settings.concurrency = atoi(value);
  else if (strcmp(name, "sources") == 0) settings.sources = atoi(value);
  else if (strcmp(name, "pid") == 0 && settings.pid_count < MAX_PIDS) settings.pids[settings.pid_count++] = atoi(value);
  else return 0;
  return 1;
}

int main(int argc, char **argv) {
  for (int i = 2; i < argc; i++) {
    char *equals = strchr(argv[i], '=');
    if (equals != NULL) *equals = 0;
    if (equals == NULL || !set(argv[i], equals + 1)) die("no setting %s", argv[i]);
  }
  if (settings.sinks < 1 || settings.sinks > MAX_SINKS) die("1 to %d sinks", MAX_SINKS);
  poller = epoll_create1(EPOLL_CLOEXEC);
  if (argc > 1 && strcmp(argv[1], "flow") == 0) flow();
  else if (argc > 1 && strcmp(argv[1], "latency") == 0) latency();
  else if (argc > 1 && strcmp(argv[1], "echo") == 0) echo();
  else if (argc > 1 && strcmp(argv[1], "open") == 0) open_many();
  else die("load flow|latency|echo|open name=value …");
}
