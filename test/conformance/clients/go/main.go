// A client of the relay on the framer of golang.org/x/net/http2, which shares no code with Node's HTTP/2. Prints a line for
// each case.
//
// Usage: conformance PORT
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	opBinary = 2
	opText   = 1
	opClose  = 8
	opPing   = 9
	opPong   = 10
	mib      = 1024 * 1024
	deadline = 30 * time.Second
)

func check(isTrue bool, format string, args ...any) {
	if !isTrue {
		panic(fmt.Sprintf(format, args...))
	}
}

func equal[T comparable](actual, expected T) {
	check(actual == expected, "%v in place of %v", actual, expected)
}

func random(length int) []byte {
	data := make([]byte, length)
	rand.Read(data)
	if length > 0 {
		data[0] = 255
	}
	return data
}

// frame is a client's frame of RFC 6455; without a mask if mask is empty.
func frame(opcode byte, payload []byte, fin bool, mask []byte) []byte {
	first := opcode
	if fin {
		first |= 0x80
	}
	second := byte(0)
	if len(mask) > 0 {
		second = 0x80
	}
	head := []byte{first}
	switch {
	case len(payload) < 126:
		head = append(head, second|byte(len(payload)))
	case len(payload) < 65536:
		head = binary.BigEndian.AppendUint16(append(head, second|126), uint16(len(payload)))
	default:
		head = binary.BigEndian.AppendUint64(append(head, second|127), uint64(len(payload)))
	}
	head = append(head, mask...)
	for i, each := range payload {
		if len(mask) > 0 {
			each ^= mask[i%4]
		}
		head = append(head, each)
	}
	return head
}

func message(payload []byte) []byte {
	return frame(opBinary, payload, true, random(4))
}

func closeFrame(code uint16, reason string) []byte {
	return frame(opClose, append(binary.BigEndian.AppendUint16(nil, code), reason...), true, random(4))
}

type stream struct {
	session    *session
	id         uint32
	headers    map[string]string
	data       []byte
	chunks     []int
	ended      bool
	isReset    bool
	code       http2.ErrCode
	sendWindow int
}

type session struct {
	conn           net.Conn
	framer         *http2.Framer
	lock           sync.Mutex
	changed        *sync.Cond
	streams        map[uint32]*stream
	nextID         uint32
	settings       map[http2.SettingID]uint32
	isAcknowledged bool
	updatesWindows bool
	sendWindow     int
	initialWindow  int
	pongs          int
	goAway         *http2.ErrCode
	closed         bool
}

func open(port string, window uint32, updatesWindows bool) *session {
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	check(err == nil, "%v", err)
	s := &session{
		conn: conn, framer: http2.NewFramer(conn, conn), streams: map[uint32]*stream{}, nextID: 1, settings: map[http2.SettingID]uint32{},
		updatesWindows: updatesWindows, sendWindow: 65535, initialWindow: 65535,
	}
	s.changed = sync.NewCond(&s.lock)
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	io.WriteString(conn, http2.ClientPreface)
	s.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	go s.readAll()
	s.until(func() bool { return s.isAcknowledged })
	return s
}

// until waits for something that the reader changes; condition runs under the lock.
func (s *session) until(condition func() bool) {
	timer := time.AfterFunc(deadline, func() {
		s.lock.Lock()
		s.closed = true
		s.changed.Broadcast()
		s.lock.Unlock()
	})
	defer timer.Stop()
	s.lock.Lock()
	defer s.lock.Unlock()
	for !condition() && !s.closed {
		s.changed.Wait()
	}
}

func (s *session) readAll() {
	for {
		received, err := s.framer.ReadFrame()
		s.lock.Lock()
		if err != nil {
			if _, isStreamError := err.(http2.StreamError); !isStreamError {
				s.closed = true
			}
		} else {
			s.take(received)
		}
		isClosed := s.closed
		s.changed.Broadcast()
		s.lock.Unlock()
		if isClosed {
			return
		}
	}
}

func (s *session) take(received http2.Frame) {
	of := s.streams[received.Header().StreamID]
	switch f := received.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			s.isAcknowledged = true
			return
		}
		f.ForeachSetting(func(setting http2.Setting) error {
			s.settings[setting.ID] = setting.Val
			if setting.ID == http2.SettingInitialWindowSize {
				s.initialWindow = int(setting.Val)
			}
			return nil
		})
		s.framer.WriteSettingsAck()
	case *http2.PingFrame:
		if f.IsAck() {
			s.pongs++
		} else {
			s.framer.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if of != nil {
			of.sendWindow += int(f.Increment)
		} else {
			s.sendWindow += int(f.Increment)
		}
	case *http2.GoAwayFrame:
		code := f.ErrCode
		s.goAway = &code
	case *http2.MetaHeadersFrame:
		of.headers = map[string]string{}
		for _, field := range f.Fields {
			of.headers[field.Name] = field.Value
		}
		of.ended = of.ended || f.StreamEnded()
	case *http2.DataFrame:
		of.data = append(of.data, f.Data()...)
		if length := len(f.Data()); length > 0 {
			of.chunks = append(of.chunks, length)
			if s.updatesWindows {
				s.framer.WriteWindowUpdate(0, uint32(length))
				s.framer.WriteWindowUpdate(f.StreamID, uint32(length))
			}
		}
		of.ended = of.ended || f.StreamEnded()
	case *http2.RSTStreamFrame:
		of.isReset, of.code = true, f.ErrCode
	}
}

// write is for all writers but the reader: the framer has one buffer.
func (s *session) write(writeFrame func()) {
	s.lock.Lock()
	defer s.lock.Unlock()
	writeFrame()
}

func (s *session) roundTrip() {
	s.lock.Lock()
	expected := s.pongs + 1
	s.framer.WritePing(false, [8]byte{1})
	s.lock.Unlock()
	s.until(func() bool { return s.pongs >= expected })
}

func (s *session) request(fields [][2]string, end bool) *stream {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	// No entries of earlier streams: each block stands for itself.
	encoder.SetMaxDynamicTableSize(0)
	for _, field := range fields {
		encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	of := &stream{session: s, id: s.nextID}
	s.nextID += 2
	s.write(func() {
		of.sendWindow = s.initialWindow
		s.streams[of.id] = of
		rest := block.Bytes()
		first := rest[:min(len(rest), 16384)]
		rest = rest[len(first):]
		s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: of.id, BlockFragment: first, EndHeaders: len(rest) == 0, EndStream: end})
		for len(rest) > 0 {
			part := rest[:min(len(rest), 16384)]
			rest = rest[len(part):]
			s.framer.WriteContinuation(of.id, len(rest) == 0, part)
		}
	})
	return of
}

func (s *session) ask(path, protocol string, without []string, more ...[2]string) *stream {
	fields := [][2]string{{":method", "CONNECT"}, {":protocol", protocol}, {":scheme", "http"}, {":path", path}, {":authority", "localhost"}}
	if protocol == "websocket" {
		fields = append(fields, [2]string{"sec-websocket-version", "13"})
	}
	kept := [][2]string{}
	for _, field := range fields {
		if !strings.Contains(" "+strings.Join(without, " ")+" ", " "+field[0]+" ") {
			kept = append(kept, field)
		}
	}
	return s.request(append(kept, more...), false)
}

func (s *session) connect(path, protocol string, more ...[2]string) *stream {
	of := s.ask(path, protocol, nil, more...)
	equal(of.status(), "200")
	return of
}

func (of *stream) isOver() bool {
	return of.ended || of.isReset || of.session.closed
}

// status is empty where the stream was reset instead.
func (of *stream) status() string {
	of.session.until(func() bool { return of.headers != nil || of.isOver() })
	return of.headers[":status"]
}

func (of *stream) send(data []byte, end bool) {
	s := of.session
	for {
		s.until(func() bool { return of.isReset || len(data) == 0 || (of.sendWindow > 0 && s.sendWindow > 0) })
		s.lock.Lock()
		if of.isReset || s.closed {
			s.lock.Unlock()
			return
		}
		length := min(len(data), 16384)
		if length > 0 {
			length = min(length, of.sendWindow, s.sendWindow)
		}
		of.sendWindow -= length
		s.sendWindow -= length
		isLast := length == len(data)
		s.framer.WriteData(of.id, end && isLast, data[:length])
		s.lock.Unlock()
		data = data[length:]
		if isLast {
			return
		}
	}
}

func (of *stream) read(length int) []byte {
	of.session.until(func() bool { return len(of.data) >= length || of.isOver() })
	check(len(of.data) >= length, "the stream ended after %d of %d bytes", len(of.data), length)
	of.session.lock.Lock()
	defer of.session.lock.Unlock()
	data := of.data[:length]
	of.data = of.data[length:]
	return data
}

func (of *stream) readToEnd() []byte {
	of.session.until(of.isOver)
	return of.read(len(of.data))
}

func (of *stream) readFrame() (byte, []byte) {
	head := of.read(2)
	check(head[1] < 128, "the server has masked a frame")
	length := uint64(head[1])
	if length == 126 {
		length = uint64(binary.BigEndian.Uint16(of.read(2)))
	} else if length == 127 {
		length = binary.BigEndian.Uint64(of.read(8))
	}
	return head[0], of.read(int(length))
}

func (of *stream) expectMessage(expected []byte) {
	first, payload := of.readFrame()
	equal(first, 0x80|opBinary)
	check(bytes.Equal(payload, expected), "another message")
}

func (of *stream) expectClose(code uint16) {
	first, payload := of.readFrame()
	equal(first, 0x80|opClose)
	equal(binary.BigEndian.Uint16(payload), code)
}

var channels = 0

func newPath() string {
	channels++
	return fmt.Sprintf("/relay/go-%d", channels)
}

func (s *session) pair(protocol string) (*stream, *stream) {
	path := newPath()
	return s.connect(path, protocol), s.connect(path, protocol)
}

type testCase struct {
	title string
	run   func(port string)
}

func plain(port string) *session {
	return open(port, 65535, true)
}

var cases = []testCase{
	{"extended CONNECT is announced", func(port string) {
		equal(plain(port).settings[http2.SettingEnableConnectProtocol], 1)
	}},
	{"a subprotocol is agreed on", func(port string) {
		of := plain(port).connect(newPath(), "websocket", [2]string{"sec-websocket-protocol", "chat, spanza.v1"})
		equal(of.headers["sec-websocket-protocol"], "spanza.v1")
		_, hasAccept := of.headers["sec-websocket-accept"]
		check(!hasAccept, "an accept value")
	}},
	{"an unknown :protocol", func(port string) {
		equal(plain(port).ask(newPath(), "chat", nil).status(), "501")
	}},
	{"no WebSocket version", func(port string) {
		of := plain(port).ask(newPath(), "websocket", []string{"sec-websocket-version"})
		equal(of.status(), "426")
		equal(of.headers["sec-websocket-version"], "13")
	}},
	{"pseudo-headers that are missing", func(port string) {
		for _, without := range [][]string{{":scheme"}, {":path"}, {":scheme", ":path"}, {":authority"}} {
			s := plain(port)
			of := s.ask(newPath(), "websocket", without)
			status := of.status()
			check((status == "" && of.code == http2.ErrCodeProtocol) || strings.HasPrefix(status, "4"), "%v: %v", without, status)
			s.connect(newPath(), "websocket")
		}
	}},
	{"a plain CONNECT", func(port string) {
		equal(plain(port).request([][2]string{{":method", "CONNECT"}, {":authority", "localhost:80"}}, false).status(), "405")
	}},
	{"hooks refuse, with and without content", func(port string) {
		s := plain(port)
		of := s.ask("/empty-403", "websocket", nil)
		equal(of.status(), "403")
		equal(len(of.readToEnd()), 0)
		of = s.ask("/body-401", "websocket", nil)
		equal(of.status(), "401")
		equal(of.headers["www-authenticate"], "Bearer")
		equal(string(of.readToEnd()), `{"error":"who are you?"}`)
		equal(s.ask("/nowhere", "websocket", nil).status(), "404")
	}},
	{"REST on path and session of a tunnel", func(port string) {
		s := plain(port)
		path := newPath()
		s.connect(path, "websocket")
		rest := s.request([][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", path}, {":authority", "localhost"}}, true)
		equal(rest.status(), "200")
		equal(string(rest.readToEnd()), "a plain answer")
	}},
	{"messages split and joined at every byte", func(port string) {
		from, to := plain(port).pair("websocket")
		datagrams := [][]byte{random(20), random(126)}
		data := append(message(datagrams[0]), message(datagrams[1])...)
		for cut := range len(data) + 1 {
			from.send(data[:cut], false)
			from.send(data[cut:], false)
			for _, datagram := range datagrams {
				to.expectMessage(datagram)
			}
		}
	}},
	{"masks", func(port string) {
		from, to := plain(port).pair("websocket")
		datagram := bytes.Repeat([]byte{0xa5}, 1001)
		for _, mask := range [][]byte{{0, 0, 0, 0}, {255, 255, 255, 255}, random(4)} {
			from.send(frame(opBinary, datagram, true, mask), false)
			to.expectMessage(datagram)
		}
	}},
	{"a ping between fragments", func(port string) {
		from, to := plain(port).pair("websocket")
		from.send(frame(opBinary, []byte("data"), false, random(4)), false)
		from.send(frame(opPing, []byte("ping"), true, random(4)), false)
		first, payload := from.readFrame()
		equal(first, 0x80|opPong)
		equal(string(payload), "ping")
		from.send(frame(0, []byte("gram"), true, random(4)), false)
		to.expectMessage([]byte("datagram"))
	}},
	{"framing errors", func(port string) {
		s := plain(port)
		for _, each := range []struct {
			data []byte
			code uint16
		}{
			{frame(opBinary, []byte("x"), true, nil), 1002}, {frame(3, nil, true, random(4)), 1002},
			{frame(opText, []byte("x"), true, random(4)), 1003}, {message(random(65536)), 1009},
		} {
			of := s.connect(newPath(), "websocket")
			of.send(each.data, false)
			of.expectClose(each.code)
		}
	}},
	{"the close handshake, and END_STREAM", func(port string) {
		of := plain(port).connect(newPath(), "websocket")
		of.send(closeFrame(1000, "bye"), false)
		of.expectClose(1000)
		of.send(nil, true)
		equal(len(of.readToEnd()), 0)
		check(of.ended && !of.isReset, "reset with %v", of.code)
	}},
	{"RST_STREAM with each code", func(port string) {
		s := plain(port)
		for code := range http2.ErrCode(14) {
			broken, partner := s.pair("spanza")
			s.write(func() { s.framer.WriteRSTStream(broken.id, code) })
			partner.readToEnd()
			equal(partner.code, http2.ErrCodeConnect)
			check(!partner.ended, "what is cut short looks like the end")
		}
	}},
	{"half-close", func(port string) {
		a, b := plain(port).pair("spanza")
		a.send([]byte("from a"), true)
		equal(string(b.readToEnd()), "from a")
		b.send(make([]byte, 100_000), true)
		equal(len(a.readToEnd()), 100_000)
		check(a.ended && !a.isReset, "reset with %v", a.code)
	}},
	{"a window of 1 byte", func(port string) {
		from, to := open(port, 1, true).pair("websocket")
		from.send(message([]byte("a datagram")), false)
		to.expectMessage([]byte("a datagram"))
		for _, length := range to.chunks {
			equal(length, 1)
		}
	}},
	{"a window of 16 MiB", func(port string) {
		s := open(port, 16*mib, false)
		s.write(func() { s.framer.WriteWindowUpdate(0, 16*mib) })
		path := newPath()
		to := s.connect(path, "spanza")
		from := plain(port).connect(path, "spanza")
		data := random(4 * mib)
		from.send(data, true)
		check(bytes.Equal(to.readToEnd(), data), "other bytes")
	}},
	{"100 tunnels, of which one does not read", func(port string) {
		s := plain(port)
		path := newPath()
		stalled := open(port, 65535, false).connect(path, "spanza")
		flood := s.connect(path, "spanza")
		pairs := [][2]*stream{}
		for range 49 {
			from, to := s.pair("websocket")
			pairs = append(pairs, [2]*stream{from, to})
		}
		for {
			if flood.sendWindow == 0 {
				s.roundTrip()
				s.roundTrip()
			}
			s.lock.Lock()
			window := flood.sendWindow
			s.lock.Unlock()
			if window == 0 {
				break
			}
			flood.send(make([]byte, min(window, 16384)), false)
		}
		datagram := random(1000)
		for _, pair := range pairs {
			pair[0].send(message(datagram), false)
		}
		for _, pair := range pairs {
			pair[1].expectMessage(datagram)
		}
		check(!stalled.isOver() && !flood.isOver(), "the stalled pair is over")
	}},
	{"30,000 bytes of headers", func(port string) {
		fields := [][2]string{}
		for i := range 30 {
			fields = append(fields, [2]string{fmt.Sprintf("x-%d", i), strings.Repeat("x", 1000)})
		}
		plain(port).connect(newPath(), "websocket", fields...)
	}},
	{"GOAWAY of the client", func(port string) {
		s := plain(port)
		from, to := s.pair("websocket")
		s.write(func() { s.framer.WriteGoAway(0, http2.ErrCodeNo, nil) })
		s.roundTrip()
		from.send(message([]byte("still here")), false)
		to.expectMessage([]byte("still here"))
	}},
	{"the server closes", func(port string) {
		s := plain(port)
		of := s.connect(newPath(), "websocket")
		fmt.Println("close")
		of.expectClose(1001)
		of.send(closeFrame(1001, ""), true)
		s.until(func() bool { return false })
		check(s.goAway != nil && *s.goAway == http2.ErrCodeNo, "no GOAWAY")
	}},
}

func run(each testCase, port string) {
	defer func() {
		if failure := recover(); failure != nil {
			fmt.Println("failed", each.title, failure)
		} else {
			fmt.Println("ok", each.title)
		}
	}()
	each.run(port)
}

func main() {
	for _, each := range cases {
		run(each, os.Args[1])
	}
}
