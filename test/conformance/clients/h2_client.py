"""A client of the relay on python3-h2, which shares no code with Node's HTTP/2. Prints a line for each case.

Usage: h2_client.py PORT
"""
import os
import socket
import struct
import sys

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

PORT = int(sys.argv[1])
BINARY, TEXT, CLOSE, PING, PONG = 2, 1, 8, 9, 10
MIB = 1024 * 1024


def frame(opcode, payload=b'', fin=True, mask=None):
    """A client's frame; mask=b'' for none."""
    mask = os.urandom(4) if mask is None else mask
    head = bytes([(0x80 if fin else 0) | opcode])
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack('!BH', bit | 126, len(payload))
    else:
        head += struct.pack('!BQ', bit | 127, len(payload))
    if not mask:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class Stream:
    def __init__(self, session, stream_id):
        self.session = session
        self.id = stream_id
        self.headers = None
        self.bytes = b''
        self.chunks = []
        self.ended = False
        self.reset_code = None

    @property
    def is_over(self):
        return self.ended or self.reset_code is not None or self.session.closed

    @property
    def status(self):
        self.session.until(lambda: self.headers is not None or self.is_over)
        return None if self.headers is None else int(self.headers[':status'])

    def send(self, data, end=False):
        while len(data) > 0:
            window = lambda: self.session.h2.local_flow_control_window(self.id)
            self.session.until(lambda: window() > 0)
            size = min(len(data), window(), 16384)
            self.session.h2.send_data(self.id, data[:size])
            self.session.flush()
            data = data[size:]
        if end:
            self.session.h2.end_stream(self.id)
            self.session.flush()

    def read(self, size):
        self.session.until(lambda: len(self.bytes) >= size or self.is_over)
        assert len(self.bytes) >= size, 'the stream ended after %d of %d bytes' % (len(self.bytes), size)
        data, self.bytes = self.bytes[:size], self.bytes[size:]
        return data

    def read_to_end(self):
        self.session.until(lambda: self.is_over)
        data, self.bytes = self.bytes, b''
        return data

    def read_frame(self):
        first, size = self.read(2)
        assert size < 128, 'the server has masked a frame'
        if size == 126:
            size = struct.unpack('!H', self.read(2))[0]
        elif size == 127:
            size = struct.unpack('!Q', self.read(8))[0]
        return first, self.read(size)

    def read_message(self):
        first, payload = self.read_frame()
        assert first == 0x80 | BINARY, 'a frame %x' % first
        return payload

    def read_close(self):
        first, payload = self.read_frame()
        assert first == 0x80 | CLOSE, 'a frame %x' % first
        return struct.unpack('!H', payload[:2])[0]


class Session:
    def __init__(self, window=65535, updates_windows=True):
        self.socket = socket.create_connection(('127.0.0.1', PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(30)
        # Whether a request is in order is for the server to find out.
        config = h2.config.H2Configuration(header_encoding='utf-8', validate_outbound_headers=False, normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.updates_windows = updates_windows
        self.streams = {}
        self.settings = None
        self.goaway = None
        self.acknowledged = 0
        self.pongs = 0
        self.closed = False
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.flush()
        self.until(lambda: self.settings is not None and self.acknowledged == 2)

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def until(self, condition):
        while not condition() and not self.closed:
            self.receive()

    def receive(self):
        data = self.socket.recv(65536)
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            stream = self.streams.get(getattr(event, 'stream_id', None))
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.settings = {**(self.settings or {}), **{code: change.new_value for code, change in event.changed_settings.items()}}
            elif isinstance(event, h2.events.SettingsAcknowledged):
                self.acknowledged += 1
            elif isinstance(event, h2.events.ResponseReceived):
                stream.headers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                stream.bytes += event.data
                stream.chunks.append(len(event.data))
                if self.updates_windows and event.flow_controlled_length > 0:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                stream.ended = True
            elif isinstance(event, h2.events.StreamReset):
                stream.reset_code = event.error_code
            elif isinstance(event, h2.events.PingAckReceived):
                self.pongs += 1
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.goaway = event.error_code
        self.flush()

    def round_trip(self):
        expected = self.pongs + 1
        self.h2.ping(b'12345678')
        self.flush()
        self.until(lambda: self.pongs >= expected)

    def request(self, headers, end=False):
        stream = Stream(self, self.h2.get_next_available_stream_id())
        self.streams[stream.id] = stream
        self.h2.send_headers(stream.id, headers, end_stream=end)
        self.flush()
        return stream

    def ask(self, path, protocol='websocket', without=(), more=()):
        headers = [(':method', 'CONNECT'), (':protocol', protocol), (':scheme', 'http'), (':path', path), (':authority', 'localhost')]
        if protocol == 'websocket':
            headers.append(('sec-websocket-version', '13'))
        return self.request([(name, value) for name, value in headers if name not in without] + list(more))

    def connect(self, path, protocol='websocket', more=()):
        stream = self.ask(path, protocol, more=more)
        assert stream.status == 200, 'refused: %s' % stream.status
        return stream

    def reset(self, stream, code):
        self.h2.reset_stream(stream.id, code)
        self.flush()


channels = 0


def new_path():
    global channels
    channels += 1
    return '/relay/python-%d' % channels


def pair(session, protocol='websocket', more=()):
    path = new_path()
    return session.connect(path, protocol, more), session.connect(path, protocol, more)


def equal(actual, expected):
    assert actual == expected, '%r in place of %r' % (actual, expected)


def announced():
    equal(Session().settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL], 1)


def subprotocol():
    stream = Session().connect(new_path(), more=[('sec-websocket-protocol', 'chat, spanza.v1')])
    equal(stream.headers['sec-websocket-protocol'], 'spanza.v1')
    assert 'sec-websocket-accept' not in stream.headers


def unknown_protocol():
    equal(Session().ask(new_path(), 'chat').status, 501)


def no_version():
    stream = Session().ask(new_path(), without=['sec-websocket-version'])
    equal(stream.status, 426)
    equal(stream.headers['sec-websocket-version'], '13')


def missing_pseudo_headers():
    for without in ([':scheme'], [':path'], [':scheme', ':path'], [':authority']):
        session = Session()
        stream = session.ask(new_path(), without=without)
        status = stream.status
        assert (status is None and stream.reset_code == h2.errors.ErrorCodes.PROTOCOL_ERROR) or 400 <= status < 500, status
        session.connect(new_path())


def plain_connect():
    stream = Session().request([(':method', 'CONNECT'), (':authority', 'localhost:80')])
    equal(stream.status, 405)


def refusals():
    session = Session()
    stream = session.ask('/empty-403')
    equal(stream.status, 403)
    equal(stream.read_to_end(), b'')
    stream = session.ask('/body-401')
    equal(stream.status, 401)
    equal(stream.headers['www-authenticate'], 'Bearer')
    equal(stream.read_to_end(), b'{"error":"who are you?"}')
    equal(session.ask('/nowhere').status, 404)


def rest_beside():
    session = Session()
    path = new_path()
    session.connect(path)
    rest = session.request([(':method', 'GET'), (':scheme', 'http'), (':path', path), (':authority', 'localhost')], end=True)
    equal(rest.status, 200)
    equal(rest.read_to_end(), b'a plain answer')


def split_and_joined():
    source, sink = pair(Session())
    datagrams = [bytes([255]) + os.urandom(20), bytes([255]) * 126]
    data = b''.join(frame(BINARY, datagram) for datagram in datagrams)
    for cut in range(len(data) + 1):
        source.send(data[:cut])
        source.send(data[cut:])
        for datagram in datagrams:
            equal(sink.read_message(), datagram)


def masks():
    source, sink = pair(Session())
    for mask in (bytes(4), b'\xff' * 4, os.urandom(4)):
        source.send(frame(BINARY, b'\xa5' * 1001, mask=mask))
        equal(sink.read_message(), b'\xa5' * 1001)


def fragments():
    source, sink = pair(Session())
    source.send(frame(BINARY, b'data', fin=False))
    source.send(frame(PING, b'ping'))
    equal(source.read_frame(), (0x80 | PONG, b'ping'))
    source.send(frame(0, b'gram'))
    equal(sink.read_message(), b'datagram')


def framing_errors():
    session = Session()
    for data, code in ((frame(BINARY, b'x', mask=b''), 1002), (frame(3), 1002), (frame(TEXT, b'x'), 1003), (frame(BINARY, bytes(65536)), 1009)):
        stream = session.connect(new_path())
        stream.send(data)
        equal(stream.read_close(), code)


def close_handshake():
    stream = Session().connect(new_path())
    stream.send(frame(CLOSE, struct.pack('!H', 1000) + b'bye'))
    equal(stream.read_close(), 1000)
    stream.send(b'', end=True)
    equal(stream.read_to_end(), b'')
    assert stream.ended and stream.reset_code is None


def reset():
    session = Session()
    for code in range(14):
        broken, partner = pair(session, 'spanza')
        session.reset(broken, code)
        partner.read_to_end()
        equal(partner.reset_code, h2.errors.ErrorCodes.CONNECT_ERROR)
        assert not partner.ended, 'what is cut short looks like the end'


def half_close():
    a, b = pair(Session(), 'spanza')
    a.send(b'from a', end=True)
    equal(b.read_to_end(), b'from a')
    b.send(bytes(100_000), end=True)
    equal(len(a.read_to_end()), 100_000)
    assert a.ended and a.reset_code is None


def window_of_1_byte():
    session = Session(window=1)
    source, sink = pair(session)
    source.send(frame(BINARY, b'a datagram'))
    equal(sink.read_message(), b'a datagram')
    equal(set(sink.chunks), {1})


def window_of_16_mib():
    session = Session(window=16 * MIB, updates_windows=False)
    session.h2.increment_flow_control_window(16 * MIB)
    session.flush()
    path = new_path()
    sink = session.connect(path, 'spanza')
    source = Session().connect(path, 'spanza')
    data = os.urandom(4 * MIB)
    source.send(data[:2 * MIB])
    equal(sink.read(2 * MIB), data[:2 * MIB])
    source.send(data[2 * MIB:], end=True)
    equal(sink.read_to_end(), data[2 * MIB:])


def many_tunnels():
    session = Session()
    other = Session(updates_windows=False)
    path = new_path()
    stalled = other.connect(path, 'spanza')
    flood = session.connect(path, 'spanza')
    pairs = [pair(session) for _ in range(49)]
    while True:
        window = session.h2.local_flow_control_window(flood.id)
        if window == 0:
            session.round_trip()
            session.round_trip()
            if session.h2.local_flow_control_window(flood.id) == 0:
                break
        flood.send(bytes(min(window, 16384)))
    for a, b in pairs:
        a.send(frame(BINARY, b'\xff' * 1000))
    for a, b in pairs:
        equal(b.read_message(), b'\xff' * 1000)
    assert not stalled.is_over and not flood.is_over


def large_headers():
    session = Session()
    session.connect(new_path(), more=[('x-%d' % i, 'x' * 1000) for i in range(30)])


def server_closes():
    session = Session()
    session.connect(new_path())
    print('close', flush=True)
    # python3-h2 takes a GOAWAY for the end of everything, so its frame is looked for here.
    data = b''
    while True:
        while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], 'big'):
            received = session.socket.recv(65536)
            assert received, 'closed without a GOAWAY'
            data += received
        if data[3] == 7:
            return equal(int.from_bytes(data[13:17], 'big'), 0)
        data = data[9 + int.from_bytes(data[:3], 'big'):]


CASES = [
    ('extended CONNECT is announced', announced), ('a subprotocol is agreed on', subprotocol), ('an unknown :protocol', unknown_protocol),
    ('no WebSocket version', no_version), ('pseudo-headers that are missing', missing_pseudo_headers), ('a plain CONNECT', plain_connect),
    ('hooks refuse, with and without content', refusals), ('REST on path and session of a tunnel', rest_beside),
    ('messages split and joined at every byte', split_and_joined), ('masks', masks), ('a ping between fragments', fragments),
    ('framing errors', framing_errors), ('the close handshake, and END_STREAM', close_handshake), ('RST_STREAM with each code', reset),
    ('half-close', half_close), ('a window of 1 byte', window_of_1_byte), ('a window of 16 MiB', window_of_16_mib),
    ('100 tunnels, of which one does not read', many_tunnels), ('30,000 bytes of headers', large_headers), ('the server closes', server_closes)
]

for title, case in CASES:
    try:
        case()
        print('ok', title, flush=True)
    except Exception as error:
        print('failed', title, type(error).__name__, error, flush=True)
