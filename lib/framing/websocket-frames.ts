/** What the wire format of WebSockets (RFC 6455) fixes, for those parts of it that this package writes itself. */

/** First bytes of frames: an opcode with FIN (section 5.2). */
export const BINARY_FRAME = 0x82
export const CLOSE_FRAME = 0x88
export const PING_FRAME = 0x89
export const PONG_FRAME = 0x8a

/** A length below this stands in the frame's second byte. This value says that two bytes with the length follow. */
export const LENGTH_IN_16_BITS = 126

/** The longest reason in a Close frame, in bytes (section 5.5). */
export const MAX_CLOSE_REASON_LENGTH = 123

/** Stands for a Close frame without a code, and is never sent (section 7.4.1). */
export const NO_STATUS = 1005
