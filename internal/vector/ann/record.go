package ann

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Records are a row's attributes as they came: what Segment.Scan gives back, and merges
// build from. Strings and counts are unsigned varints with bytes after them.

func appendRecord(b []byte, r Row) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.Restricts)))
	for _, v := range r.Restricts {
		b = appendStrings(appendString(b, v.Namespace), v.Allow)
		b = appendStrings(b, v.Deny)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Numerics)))
	for _, v := range r.Numerics {
		b = append(appendString(b, v.Namespace), byte(v.Kind))
		bits := uint64(v.Int)
		if v.Kind != Int {
			bits = math.Float64bits(v.Float)
		}
		b = binary.LittleEndian.AppendUint64(b, bits)
	}
	return append(appendString(b, r.Crowding), r.Extra...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, l []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(l)))
	for _, s := range l {
		b = appendString(b, s)
	}
	return b
}

// decoder of a record; bad is set once something does not fit.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string { return string(d.take(d.uvarint())) }

func (d *decoder) strings() []string {
	var out []string
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		out = append(out, d.string())
	}
	return out
}

// readRecord fills the attributes of a row.
func readRecord(b []byte, r *Row) error {
	d := decoder{b: b}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		r.Restricts = append(r.Restricts, Restrict{Namespace: d.string(), Allow: d.strings(), Deny: d.strings()})
	}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		v := Numeric{Namespace: d.string()}
		f := d.take(9)
		if d.bad {
			break
		}
		v.Kind = Kind(f[0])
		if bits := binary.LittleEndian.Uint64(f[1:]); v.Kind == Int {
			v.Int = int64(bits)
		} else {
			v.Float = math.Float64frombits(bits)
		}
		r.Numerics = append(r.Numerics, v)
	}
	r.Crowding = d.string()
	if d.bad {
		return fmt.Errorf("%w: attributes of a row", ErrDamaged)
	}
	if len(d.b) > 0 {
		r.Extra = append([]byte(nil), d.b...)
	}
	return nil
}
