package record

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"
)

func TestEncodingIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genState.Draw(t, "a"), genState.Draw(t, "b")
		got, err := Decode(string(a.Encode()))
		if err != nil {
			t.Fatalf("Decode(Encode(a)): %v", err)
		}
		if !got.Equal(a) {
			t.Fatalf("came back as another:\n%+v\n%+v", a, got)
		}
		if a.Equal(b) != bytes.Equal(a.Encode(), b.Encode()) {
			t.Fatalf("equal states and equal bytes are not the same thing:\n%+v\n%+v", a, b)
		}
		if prefix := []byte("before"); !bytes.Equal(a.Append(prefix), append(prefix, a.Encode()...)) {
			t.Fatal("Append depends on what it appends to")
		}
	})
}

// TestDecodeTakesOneSpelling mutates encodings. Whatever Decode takes must be
// the one spelling of what it understood.
func TestDecodeTakesOneSpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genState.Draw(t, "s")
		was := s.Encode()
		is := mutate(t, slices.Clone(was))
		got, err := Decode(string(is))
		switch {
		case err != nil:
			if !errors.Is(err, ErrEncoding) {
				t.Fatalf("error %v does not wrap ErrEncoding", err)
			}
			if !got.IsZero() {
				t.Fatalf("an error came with the state %+v", got)
			}
		case !bytes.Equal(got.Encode(), is):
			t.Fatalf("Decode took %x, which Encode writes as %x", is, got.Encode())
		case got.Equal(s) != bytes.Equal(is, was):
			t.Fatalf("%x and %x decode to equal states", is, was)
		}
	})
}

func mutate(t *rapid.T, b []byte) []byte {
	for range rapid.IntRange(1, 3).Draw(t, "mutations") {
		i, j := rapid.IntRange(0, len(b)).Draw(t, "i"), rapid.IntRange(0, len(b)).Draw(t, "j")
		i, j = min(i, j), max(i, j)
		switch draw(t, "mutation", "flip", "insert", "cut", "repeat", "swap") {
		case "flip":
			if i < len(b) {
				b[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			}
		case "insert":
			b = slices.Insert(b, i, rapid.Byte().Draw(t, "byte"))
		case "cut":
			b = slices.Delete(b, i, j)
		case "repeat":
			b = slices.Insert(b, j, slices.Clone(b[i:j])...)
		case "swap":
			b = slices.Concat(b[j:], b[i:j], b[:i])
		}
	}
	return b
}

// TestDecodeEveryByteReplaced flips every bit of one encoding, and puts the
// values at the edges into every place.
func TestDecodeEveryByteReplaced(t *testing.T) {
	s := typicalState(t, 1)
	was := s.Encode()
	is := slices.Clone(was)
	for i := range is {
		for v := range 12 {
			is[i] = was[i] ^ byte(1<<v)
			if v >= 8 {
				is[i] = []byte{0, 0x7f, 0x80, 0xff}[v-8]
			}
			got, err := Decode(string(is))
			if err == nil && (!bytes.Equal(got.Encode(), is) || got.Equal(s) != (is[i] == was[i])) {
				t.Fatalf("byte %d as %#x decodes to %+v", i, is[i], got)
			}
		}
		is[i] = was[i]
	}
	for n := range was {
		if got, err := Decode(string(was[:n])); err == nil && !bytes.Equal(got.Encode(), was[:n]) {
			t.Fatalf("cut off at %d: decodes to %+v", n, got)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	tag := func(num protowire.Number, typ protowire.Type) string {
		return string(protowire.AppendTag(nil, num, typ))
	}
	sub := func(num protowire.Number, body string) string {
		return string(protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), body))
	}
	varint := func(num protowire.Number, v uint64) string {
		return string(protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v))
	}
	override := func(field string) string { return sub(2, sub(1, field)+sub(2, varint(1, 1))) }
	claim := func(key string) string { return sub(1, sub(1, key)) }
	for name, in := range map[string]string{
		"nothing at all":             "",
		"an unknown schema":          "\x02",
		"no schema":                  "\x00",
		"a broken tag":               "\x01\xff",
		"an unknown field":           "\x01" + varint(5, 1),
		"a group":                    "\x01" + tag(1, protowire.StartGroupType),
		"a field without its value":  "\x01" + tag(4, protowire.VarintType),
		"a length beyond the end":    "\x01" + tag(1, protowire.BytesType) + "\x05ab",
		"a length of 2^64-1":         "\x01" + tag(1, protowire.BytesType) + strings.Repeat("\xff", 9) + "\x01",
		"a varint of eleven bytes":   "\x01" + tag(4, protowire.VarintType) + strings.Repeat("\xff", 11),
		"a longer varint":            "\x01" + tag(4, protowire.VarintType) + "\x81\x00",
		"a longer tag":               "\x01\xa0\x00\x01",
		"a zero field":               "\x01" + varint(4, 0),
		"a number as bytes":          "\x01" + sub(4, "1"),
		"a number as fixed64":        "\x01" + tag(4, protowire.Fixed64Type) + "\x01\x00\x00\x00\x00\x00\x00\x00",
		"bytes as a number":          "\x01" + varint(1, 1),
		"a field twice":              "\x01" + varint(4, 1) + varint(4, 1),
		"fields out of order":        "\x01" + varint(4, 1) + claim("k"),
		"claims out of order":        "\x01" + claim("l") + claim("k"),
		"a claim twice":              "\x01" + claim("k") + claim("k"),
		"overrides out of order":     "\x01" + override("l") + override("k"),
		"a word twice":               "\x01" + override("k") + override("k"),
		"claims after words":         "\x01" + override("k") + claim("k"),
		"an empty removal":           "\x01" + sub(3, ""),
		"two removals":               "\x01" + sub(3, varint(1, 1)) + sub(3, varint(1, 2)),
		"an empty stamp":             "\x01" + sub(2, sub(1, "f")+sub(2, "")),
		"a logical clock of 33 bits": "\x01" + sub(2, sub(1, "f")+sub(2, varint(2, 1<<32))),
		"an empty account":           "\x01" + sub(1, sub(1, "k")+sub(3, "")),
		"an unknown claim field":     "\x01" + sub(1, sub(1, "k")+varint(5, 1)),
		"an unknown account field":   "\x01" + sub(1, sub(3, varint(1, 1)+varint(6, 1))),
		"an unknown word field":      "\x01" + sub(2, sub(1, "f")+varint(6, 1)),
		"an unknown removal field":   "\x01" + sub(3, varint(1, 1)+varint(6, 1)),
		"an unknown stamp field":     "\x01" + sub(2, sub(2, varint(1, 1)+varint(3, 1))),
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := Decode(in); !errors.Is(err, ErrEncoding) {
				t.Errorf("Decode(%x) = %+v, %v; want an error", in, s, err)
			}
		})
	}
}

func TestBodiesAreCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := draw(t, "profile", encodeAll(testProfiles, Profile.encode)...)
		is := string(mutate(t, []byte(body)))
		if p, err := DecodeProfile(is); err == nil && p.encode() != is {
			t.Fatalf("DecodeProfile took %x, which is written %x", is, p.encode())
		}
		body = draw(t, "vms", encodeAll(testVMLists, encodeVMs)...)
		is = string(mutate(t, []byte(body)))
		if vms, err := DecodeVMs(is); err == nil && encodeVMs(vms) != is {
			t.Fatalf("DecodeVMs took %x, which is written %x", is, encodeVMs(vms))
		}
	})
}

func TestVMsAreSortedOnACopy(t *testing.T) {
	vms := []VM{{SID: "b"}, {SID: "a"}}
	if encodeVMs(vms) != encodeVMs([]VM{{SID: "a"}, {SID: "b"}}) {
		t.Error("the order in which an agent lists its VMs shows in the encoding")
	}
	if vms[0].SID != "b" {
		t.Error("the list of the caller was sorted")
	}
}

func TestLengthsOfNestedMessages(t *testing.T) {
	// The length of a message takes one, two or three bytes; it is written last.
	for _, n := range []int{0, 1, 110, 120, 127, 128, 129, 16382, 16383, 16384, 70000} {
		s := State{Claims: []Claim{{VMs: Account{Version: Version{1, 1}, Body: strings.Repeat("x", n)}}}}
		got, err := Decode(string(s.Encode()))
		if err != nil || !got.Equal(s) {
			t.Errorf("a body of %d bytes: %v", n, err)
		}
	}
}

// TestDigestIsIncremental keeps the digest of a table one change at a time.
func TestDigestIsIncremental(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := map[string]State{}
		var kept Digest
		for range rapid.IntRange(0, 10).Draw(t, "changes") {
			id := draw(t, "id", "n1", "n2", "n", "n11")
			now := Join(table[id], genState.Draw(t, "state"))
			kept = kept.Xor(table[id].Digest(id)).Xor(now.Digest(id))
			table[id] = now
		}
		var computed Digest
		for id, s := range table {
			computed = computed.Xor(s.Digest(id))
		}
		if kept != computed {
			t.Fatalf("kept %x, computed %x", kept, computed)
		}
		for id, s := range table {
			kept = kept.Xor(s.Digest(id))
		}
		if kept != (Digest{}) {
			t.Fatalf("the digest of nothing is %x", kept)
		}
	})
}

func TestDigestTellsApart(t *testing.T) {
	if (State{}).Digest("n") != (Digest{}) {
		t.Error("the zero state has a digest")
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := genState.Draw(t, "a"), genState.Draw(t, "b")
		if a.Equal(b) != (a.Digest("n") == b.Digest("n")) {
			t.Fatalf("digests do not tell states apart:\n%+v\n%+v", a, b)
		}
		if !a.IsZero() && a.Digest("n1") == a.Digest("n2") {
			t.Fatalf("digests do not tell nodes apart: %+v", a)
		}
	})
}
