#pragma once
#include <stddef.h>
#include <stdint.h>

// How datagrams travel, as the relay's framings and as WebSocket messages of a client.

enum framing { RAW, WG, LEN16, WEBSOCKET };
#define MAX_HEADER 14
#define TRANSPORT_DATA 4

enum framing framing_named(const char *name);

// Writes one WireGuard message as a client sends it; returns how much that took.
size_t frame_put(enum framing framing, uint8_t *to, const uint8_t *message, size_t length);

// Counts what comes out of a tunnel.
struct counter {
  enum framing framing;
  uint8_t head[MAX_HEADER];
  size_t held;        // of the next frame's header
  uint64_t skip;      // what is left of the frame that was counted last
  uint64_t datagrams; // without control frames
  uint64_t bytes;     // of their payload
};

void count(struct counter *c, const uint8_t *bytes, size_t length);
