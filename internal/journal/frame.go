package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// The layout of a frame, little endian. docs/reference/journal.md is the
// reference.
const (
	frameMagic  = 0x4d524650 // "PFRM"
	frameHeader = 36

	offBodyLen = 4  // uint32: key and payload
	offBodyCRC = 8  // uint32: CRC-32C of key and payload
	offKeyLen  = 12 // uint16
	offKind    = 14 // uint8, then one byte 0
	offSeq     = 16 // uint64
	offTime    = 24 // int64: Unix nanoseconds
	offHeadCRC = 32 // uint32: CRC-32C of the bytes before
)

// The kinds of frames. Data and delete frames are entries.
const (
	kindData     = 1
	kindDelete   = 2
	kindSnapshot = 3 // a copy of the newest data frame of a key
	kindSnapEnd  = 4 // all copies are before it
	kindClose    = 5 // Close was called, and nothing is lost before it
)

// The layout of the head of a segment. The first 16 bytes are the same in
// every version to come.
const (
	segmentMagic  = "PERDJRNL"
	segmentHeader = 40

	offVersion    = 8  // uint32
	offVersionCRC = 12 // uint32: CRC-32C of the 12 bytes before
	offBase       = 16 // uint64
	offBoot       = 24 // uint64: hash of the boot's name, 0 if unknown
	offSegCRC     = 32 // uint32: CRC-32C of the 32 bytes before, then 4 bytes 0
)

// ok: a constant table.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// head is a decoded frame header.
type head struct {
	kind    byte
	keyLen  int
	bodyLen int64
	bodyCRC uint32
	seq     uint64
	nanos   int64
}

func (h head) size() int64   { return frameHeader + h.bodyLen }
func (h head) isEntry() bool { return h.kind == kindData || h.kind == kindDelete }

// appendFrame appends the encoding of a frame to b.
func appendFrame(b []byte, kind byte, seq uint64, nanos int64, key string, payload []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, frameHeader)...)
	b = append(b, key...)
	b = append(b, payload...)
	h := b[start : start+frameHeader]
	body := b[start+frameHeader:]
	le := binary.LittleEndian
	le.PutUint32(h, frameMagic)
	le.PutUint32(h[offBodyLen:], uint32(len(body)))
	le.PutUint32(h[offBodyCRC:], checksum(body))
	le.PutUint16(h[offKeyLen:], uint16(len(key)))
	h[offKind] = kind
	le.PutUint64(h[offSeq:], seq)
	le.PutUint64(h[offTime:], uint64(nanos))
	le.PutUint32(h[offHeadCRC:], checksum(h[:offHeadCRC]))
	return b
}

// decodeHead decodes a frame header; ok says that its checksum and its bounds
// hold. b has at least frameHeader bytes.
func decodeHead(b []byte) (h head, ok bool) {
	le := binary.LittleEndian
	if le.Uint32(b) != frameMagic || le.Uint32(b[offHeadCRC:]) != checksum(b[:offHeadCRC]) {
		return head{}, false
	}
	h = head{
		kind: b[offKind], keyLen: int(le.Uint16(b[offKeyLen:])),
		bodyLen: int64(le.Uint32(b[offBodyLen:])), bodyCRC: le.Uint32(b[offBodyCRC:]),
		seq: le.Uint64(b[offSeq:]), nanos: int64(le.Uint64(b[offTime:])),
	}
	if h.kind < kindData || h.kind > kindClose || h.keyLen > MaxKey ||
		int64(h.keyLen) > h.bodyLen || h.bodyLen > MaxKey+MaxPayload {
		return head{}, false
	}
	return h, true
}

func encodeSegmentHeader(base, boot uint64) []byte {
	b := make([]byte, segmentHeader)
	le := binary.LittleEndian
	copy(b, segmentMagic)
	le.PutUint32(b[offVersion:], FormatVersion)
	le.PutUint32(b[offVersionCRC:], checksum(b[:offVersionCRC]))
	le.PutUint64(b[offBase:], base)
	le.PutUint64(b[offBoot:], boot)
	le.PutUint32(b[offSegCRC:], checksum(b[:offSegCRC]))
	return b
}

// decodeSegmentHeader returns the version (0 if the head is damaged) and,
// for versions that are known, the boot.
func decodeSegmentHeader(b []byte) (version uint32, boot uint64, ok bool) {
	le := binary.LittleEndian
	if len(b) < 16 || string(b[:8]) != segmentMagic || le.Uint32(b[offVersionCRC:]) != checksum(b[:offVersionCRC]) {
		return 0, 0, false
	}
	version = le.Uint32(b[offVersion:])
	if version != FormatVersion {
		return version, 0, true
	}
	if len(b) < segmentHeader || le.Uint32(b[offSegCRC:]) != checksum(b[:offSegCRC]) {
		return 0, 0, false
	}
	return version, le.Uint64(b[offBoot:]), true
}

const segmentSuffix = ".journal"

// segmentName returns the file name of the segment that begins with base.
func segmentName(base uint64) string { return fmt.Sprintf("%020d%s", base, segmentSuffix) }

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (base uint64, ok bool) {
	digits, found := strings.CutSuffix(name, segmentSuffix)
	if !found || len(digits) != 20 {
		return 0, false
	}
	if _, err := fmt.Sscanf(digits, "%d", &base); err != nil {
		return 0, false
	}
	return base, segmentName(base) == name
}
