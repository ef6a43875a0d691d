// The floor: joins each connection to a port with one to another port by splice(2), without the bytes ever coming up to
// the program. `splice <port> <target port>`

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PIPE_SIZE (1 << 20)

struct direction {
  int from, to, pipe[2];
  size_t held;
  int has_ended;
};

struct pair {
  struct direction directions[2];
};

static struct sockaddr_in loopback(int port) {
  return (struct sockaddr_in) { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

// Returns whether the connections are still good.
static int copy(struct direction *d) {
  for (;;) {
    ssize_t in = 0;
    if (!d->has_ended && d->held < PIPE_SIZE) {
      in = splice(d->from, NULL, d->pipe[1], NULL, PIPE_SIZE - d->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
      if (in > 0) d->held += in;
      else if (in == 0) d->has_ended = 1;
      else if (errno != EAGAIN) return 0;
    }
    ssize_t out = d->held == 0 ? 0 : splice(d->pipe[0], NULL, d->to, NULL, d->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (out > 0) d->held -= out;
    else if (out < 0 && errno != EAGAIN) return 0;
    if (in <= 0 && out <= 0) break;
  }
  if (d->has_ended && d->held == 0) shutdown(d->to, SHUT_WR);
  return 1;
}

static void join(int poller, int a, int b) {
  struct pair *pair = calloc(1, sizeof *pair);
  pair->directions[0] = (struct direction) { .from = a, .to = b };
  pair->directions[1] = (struct direction) { .from = b, .to = a };
  int fds[] = { a, b }, on = 1;
  for (int i = 0; i < 2; i++) {
    if (pipe2(pair->directions[i].pipe, O_NONBLOCK) != 0) exit(1);
    fcntl(pair->directions[i].pipe[0], F_SETPIPE_SZ, PIPE_SIZE);
    setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fds[i], F_SETFL, O_NONBLOCK);
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = pair };
    epoll_ctl(poller, EPOLL_CTL_ADD, fds[i], &event);
  }
}

static void leave(struct pair *pair) {
  // A second event for it cannot be waiting: they are taken one at a time.
  for (int i = 0; i < 2; i++) {
    close(pair->directions[i].from);
    close(pair->directions[i].pipe[0]);
    close(pair->directions[i].pipe[1]);
  }
  free(pair);
}

int main(int argc, char **argv) {
  if (argc != 3) return 1;
  signal(SIGPIPE, SIG_IGN);
  struct sockaddr_in from = loopback(atoi(argv[1])), to = loopback(atoi(argv[2]));
  int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1, poller = epoll_create1(0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *) &from, sizeof from) != 0 || listen(listener, 100) != 0) return 1;
  struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    if (epoll_wait(poller, &event, 1, -1) != 1) continue;
    struct pair *pair = event.data.ptr;
    if (pair == NULL) {
      int a = accept(listener, NULL, NULL), b = socket(AF_INET, SOCK_STREAM, 0);
      if (connect(b, (struct sockaddr *) &to, sizeof to) == 0) {
        join(poller, a, b);
      } else {
        close(a);
        close(b);
      }
      continue;
    }
    struct direction *d = pair->directions;
    if (!copy(&d[0]) || !copy(&d[1]) || (d[0].has_ended && d[1].has_ended)) leave(pair);
  }
}
