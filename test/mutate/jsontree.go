package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

// value is a JSON value that may be written in ways that no encoder would:
// with a member twice, or with raw bytes that are no JSON at all.
type value struct {
	raw     []byte // of a scalar
	members []member
	items   []*value
	kind    byte // 's'calar, 'o'bject, 'a'rray
}

type member struct {
	key   []byte // with its quotes
	value *value
}

func parseJSON(text []byte) (*value, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return readValue(dec)
}

func readValue(dec *json.Decoder) (*value, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		v := &value{kind: 'o'}
		for dec.More() {
			key, err := readValue(dec)
			if err != nil {
				return nil, err
			}
			below, err := readValue(dec)
			if err != nil {
				return nil, err
			}
			v.members = append(v.members, member{key.raw, below})
		}
		_, err = dec.Token()
		return v, err
	case json.Delim('['):
		v := &value{kind: 'a'}
		for dec.More() {
			item, err := readValue(dec)
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, item)
		}
		_, err = dec.Token()
		return v, err
	}
	raw, err := json.Marshal(token)
	return &value{kind: 's', raw: raw}, err
}

func (v *value) write(b *bytes.Buffer) {
	switch v.kind {
	case 'o':
		b.WriteByte('{')
		for i, m := range v.members {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(m.key)
			b.WriteByte(':')
			m.value.write(b)
		}
		b.WriteByte('}')
	case 'a':
		b.WriteByte('[')
		for i, item := range v.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.write(b)
		}
		b.WriteByte(']')
	default:
		b.Write(v.raw)
	}
}

func (v *value) text() []byte {
	var b bytes.Buffer
	v.write(&b)
	return b.Bytes()
}

// all lists v and everything below it.
func (v *value) all() []*value {
	out := []*value{v}
	for i := 0; i < len(out); i++ {
		for _, m := range out[i].members {
			out = append(out, m.value)
		}
		out = append(out, out[i].items...)
	}
	return out
}

// maxText ends the changes of a text that has grown beyond what a request may have.
const maxText = 8 << 20

// mutateJSON changes one to three places of a JSON text and says how.
func mutateJSON(r *rand.Rand, text []byte) ([]byte, string) {
	root, err := parseJSON(text)
	if err != nil {
		return mutateBytes(r, text)
	}
	var how []string
	for range 1 + r.IntN(3)*r.IntN(2) {
		how = append(how, mutateValue(r, root))
		if len(root.text()) > maxText {
			break
		}
	}
	return root.text(), strings.Join(how, ", ")
}

func mutateValue(r *rand.Rand, root *value) string {
	all := root.all()
	v := all[r.IntN(len(all))]
	other := all[r.IntN(len(all))]
	switch n := r.IntN(16); {
	case n < 5:
		raw, how := oddScalar(r)
		*v = value{kind: 's', raw: raw}
		return how
	case n < 7:
		*v = *parsedCopy(other)
		return "a value from another place"
	case n == 7:
		depth := []int{3, 50, 200, 1000, 9000, 20000, 100000}[r.IntN(7)]
		*v = value{kind: 's', raw: nested(r, depth)}
		return fmt.Sprintf("nested %d deep", depth)
	case n == 8:
		*v = value{kind: 'a', items: []*value{parsedCopy(v)}}
		return "put into a list"
	case n == 9:
		*v = value{kind: 'o', members: []member{{[]byte(oddKey(r)), parsedCopy(v)}}}
		return "put into an object"
	case v.kind == 'o' && len(v.members) > 0:
		return mutateMember(r, v, other)
	case v.kind == 'a' && len(v.items) > 0:
		return mutateList(r, v)
	case bytes.HasPrefix(v.raw, []byte(`"`)):
		v.raw = mutateString(r, v.raw)
		return "a changed text"
	default:
		v.raw = append([]byte("-"), v.raw...)
		return "a minus sign"
	}
}

func mutateMember(r *rand.Rand, v, other *value) string {
	i := r.IntN(len(v.members))
	m := v.members[i]
	switch r.IntN(6) {
	case 0:
		v.members = append(v.members[:i:i], v.members[i+1:]...)
		return "without " + string(m.key)
	case 1:
		v.members = append(v.members, member{m.key, parsedCopy(m.value)})
		return "twice " + string(m.key)
	case 2:
		v.members = append(v.members, member{m.key, parsedCopy(other)})
		return "twice, with another value, " + string(m.key)
	case 3:
		v.members[i].key = []byte(oddKey(r))
		return "renamed " + string(m.key)
	case 4:
		count := affordable([]int{10, 1000, 20000}[r.IntN(3)], m.value)
		for k := range count {
			v.members = append(v.members, member{fmt.Appendf(nil, `"k%d"`, k), parsedCopy(m.value)})
		}
		return fmt.Sprintf("%d more members", count)
	default:
		j := r.IntN(len(v.members))
		v.members[i].value, v.members[j].value = v.members[j].value, m.value
		return "two values swapped"
	}
}

// affordable is how often v may be repeated without making requests of many
// megabytes, which would test nothing more and take long.
func affordable(count int, v *value) int { return min(count, (1<<20)/(len(v.text())+1)) }

func mutateList(r *rand.Rand, v *value) string {
	switch i := r.IntN(len(v.items)); r.IntN(3) {
	case 0:
		v.items = append(v.items[:i:i], v.items[i+1:]...)
		return "an item less"
	default:
		count := affordable([]int{2, 100, 5000}[r.IntN(3)], v.items[i])
		for range count {
			v.items = append(v.items, parsedCopy(v.items[i]))
		}
		return fmt.Sprintf("%d more items", count)
	}
}

// parsedCopy copies v. Nothing is ever in a tree twice: a change of a value that
// stands in many places would put a copy of the whole into each of them.
func parsedCopy(v *value) *value {
	c, err := parseJSON(v.text())
	if err != nil {
		return &value{kind: 's', raw: v.text()}
	}
	return c
}

// nested writes brackets or braces that are depth deep.
func nested(r *rand.Rand, depth int) []byte {
	if r.IntN(2) == 0 {
		return []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth))
	}
	return []byte(strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth))
}

func oddKey(r *rand.Rand) string {
	keys := []string{
		`""`, `"@type"`, `"\u0000"`, `"name"`, `"NAME"`, `"unknown_field"`, `"a.b"`, "\"\xff\"", `"` + strings.Repeat("k", 5000) + `"`, `"\ud800"`,
		`"displayName"`, `"display_name"`, `"state"`, `"createTime"`, `"etag"`, `"0"`, `"*"`, `"$ref"`, `1`, `a`, `null`,
	}
	return keys[r.IntN(len(keys))]
}

func oddScalar(r *rand.Rand) (raw []byte, how string) {
	scalars := []string{
		"null", "true", "false", "0", "-0", "-1", "1", "1.5", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "0x10", "01", "1.", ".5", "+1", "1e",
		"9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "2147483648", "4294967296", "1e-400",
		"5e-324", "123456789012345678901234567890", `"NaN"`, `"Infinity"`, `"-1"`, `"1"`, `"1e3"`, `"9223372036854775808"`, `""`, `" "`, `"\u0000"`,
		`"\ud800"`, `"\udc00\ud800"`, "\"\xff\xfe\"", "\"\xc0\xaf\"", "\"\t\n\"", `"\x"`, `"` + strings.Repeat("a", 300) + `"`, `"` + strings.Repeat("é", 3000) + `"`,
		`"../../../etc/passwd"`, `"gs://"`, `"gs://corpus-bucket"`, `"gs://corpus-bucket/../x"`, `"gs://-/x"`, `"file:///etc/passwd"`, `"/gcs/../x"`,
		`"projects/p/locations/us-central1/models/corpus-model"`, `"projects/p/locations/us-central1/endpoints/77"`, `"projects/-/locations/-/models/-"`,
		`"projects/999999999999/locations/us-central1/models/1"`, `"projects//locations//models/"`, `"projects/p/locations/us-central1/models/corpus-model@"`,
		`"projects/p/locations/us-central1/models/corpus-model@@1"`, `"projects/p/locations/us-central1"`, `"2026-13-45T00:00:00Z"`, `"0000-00-00T00:00:00Z"`,
		`"9999-12-31T23:59:59.999999999Z"`, `"-315576000001s"`, `"315576000000s"`, `"0.0000000001s"`, `"1s"`, `"name,labels"`, `"*"`, `"a..b"`, `"labels.a.b"`,
		"[]", "{}", `{"a":1}`, `[null]`, `{"@type":"type.googleapis.com/google.protobuf.Any"}`, `{"@type":"x"}`, `"{{$.inputs.parameters['x']}}"`, `"{{$"`,
		`"%s%n%d"`, `"'; DROP TABLE rows; --"`, `"<script>"`, `"` + "\u202e" + `x"`, "undefined", "'a'", "//", "/* c */1", "[1,]", `{"a":1,}`,
	}
	if n := r.IntN(len(scalars) + 3); n < len(scalars) {
		return []byte(scalars[n]), "value " + clip([]byte(scalars[n]), 60)
	}
	size := []int{1000, 70000, 1 << 20}[r.IntN(3)]
	return []byte(`"` + strings.Repeat("x", size) + `"`), fmt.Sprintf("a text of %d bytes", size)
}

// mutateString changes what is between the quotes of a JSON string.
func mutateString(r *rand.Rand, raw []byte) []byte {
	inner := raw[1 : len(raw)-1]
	odd := []string{`\u0000`, "/", "//", "..", "%2F", "*", "@", ":", "-", " ", "é", "\xff", `\"`, `\\`, ",", "{{$", "}}", "'", "(", ")", "99999999999999999999", "_", "A", "\n"}
	at := r.IntN(len(inner) + 1)
	var out []byte
	switch r.IntN(4) {
	case 0: // cut
		out = inner[:at]
	case 1: // doubled
		out = append(append(out, inner...), inner...)
	default:
		out = append(append(append(out, inner[:at]...), odd[r.IntN(len(odd))]...), inner[at:]...)
	}
	return append(append([]byte(`"`), out...), '"')
}

// mutateBytes changes bytes without looking at what they mean.
func mutateBytes(r *rand.Rand, b []byte) ([]byte, string) {
	out := append([]byte(nil), b...)
	if len(out) == 0 {
		return []byte{byte(r.IntN(256))}, "a byte"
	}
	at := r.IntN(len(out))
	switch r.IntN(6) {
	case 0:
		return out[:at], fmt.Sprintf("cut at %d", at)
	case 1:
		out[at] ^= 1 << r.IntN(8)
		return out, fmt.Sprintf("a flipped bit at %d", at)
	case 2:
		return append(out[:at:at], append([]byte{byte(r.IntN(256))}, out[at:]...)...), fmt.Sprintf("a byte more at %d", at)
	case 3:
		return append(out[:at:at], out[at+1:]...), fmt.Sprintf("a byte less at %d", at)
	case 4:
		end := at + r.IntN(len(out)-at)
		return append(out[:end:end], out[at:]...), fmt.Sprintf("bytes %d to %d twice", at, end)
	default:
		return append(out, out...), "all of it twice"
	}
}
