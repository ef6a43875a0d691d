#include "framing.h"
#include "conn.h"
#include <string.h>

static const uint8_t mask[4] = { 0x5a, 0xc3, 0x96, 0x0f };

enum framing framing_named(const char *name) {
  if (strcmp(name, "raw") == 0) return RAW;
  if (strcmp(name, "wg") == 0) return WG;
  if (strcmp(name, "len16") == 0) return LEN16;
  if (strcmp(name, "websocket") == 0) return WEBSOCKET;
  die("no framing \"%s\"", name);
}

size_t frame_put(enum framing framing, uint8_t *to, const uint8_t *message, size_t length) {
  size_t at = 0;
  if (framing == LEN16) {
    to[at++] = length >> 8;
    to[at++] = length;
  } else if (framing == WEBSOCKET) {
    to[at++] = 0x82;
    if (length < 126) {
      to[at++] = 0x80 | length;
    } else if (length < 65536) {
      to[at++] = 0x80 | 126;
      to[at++] = length >> 8;
      to[at++] = length;
    } else {
      to[at++] = 0x80 | 127;
      for (int shift = 56; shift >= 0; shift -= 8) to[at++] = (uint64_t) length >> shift;
    }
    memcpy(to + at, mask, 4);
    at += 4;
    for (size_t i = 0; i < length; i++) to[at + i] = message[i] ^ mask[i % 4];
    return at + length;
  }
  memcpy(to + at, message, length);
  if (framing == WG && message[0] == TRANSPORT_DATA) {
    to[1] = length >> 16;
    to[2] = length >> 8;
    to[3] = length;
  }
  return at + length;
}

// Reads the header of a frame: how long it is with the payload that follows, 0 when more bytes are needed.
static size_t measure(enum framing framing, const uint8_t *head, size_t held, size_t *header, size_t *length, int *is_control) {
  *is_control = 0;
  if (framing == LEN16) {
    if (held < 2) return 0;
    *header = 2;
    *length = head[0] << 8 | head[1];
    *is_control = *length == 0;
    return 2 + *length;
  }
  if (framing == WG) {
    if (held < 4) return 0;
    size_t stamp = head[1] << 16 | head[2] << 8 | head[3];
    *header = 0;
    if (head[0] == TRANSPORT_DATA && stamp >= 32 && stamp <= 65535) return *length = stamp;
    *header = 4;
    *length = stamp;
    *is_control = head[0] >= 0x80;
    if (head[0] != 0 && !*is_control) die("corrupt: frame type %d, length %zu", head[0], stamp);
    return 4 + stamp;
  }
  if (held < 2) return 0;
  *is_control = (head[0] & 0x0f) >= 8;
  if ((head[0] & 0xf0) != 0x80 || (head[0] & 0x0f) == 0 || (head[1] & 0x80) != 0) die("corrupt: WebSocket frame %02x %02x", head[0], head[1]);
  *header = head[1] < 126 ? 2 : head[1] == 126 ? 4 : 10;
  if (held < *header) return 0;
  *length = head[1] < 126 ? head[1] : 0;
  for (size_t i = 2; i < *header; i++) *length = *length << 8 | head[i];
  return *header + *length;
}

void count(struct counter *c, const uint8_t *bytes, size_t length) {
  if (c->framing == RAW) {
    c->bytes += length;
    return;
  }
  size_t at = 0;
  while (at < length) {
    if (c->skip > 0) {
      size_t part = c->skip < length - at ? c->skip : length - at;
      c->skip -= part;
      at += part;
      continue;
    }
    size_t header, payload, size;
    int is_control;
    if (c->held == 0 && length - at >= MAX_HEADER) {
      size = measure(c->framing, bytes + at, MAX_HEADER, &header, &payload, &is_control);
      c->skip = size;
    } else {
      c->head[c->held++] = bytes[at++];
      size = measure(c->framing, c->head, c->held, &header, &payload, &is_control);
      if (size == 0) continue;
      c->skip = size - c->held;
      c->held = 0;
    }
    if (is_control) continue;
    c->datagrams++;
    c->bytes += payload;
  }
}
