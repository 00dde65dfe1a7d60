package blob

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// damaged says that an object's bytes are not those that were stored.
func damaged(o Object, why string) error {
	return resource.Errorf(codes.DataLoss, "the stored content of gs://%s/%s#%d is damaged: %s", o.Bucket, o.Name, o.Generation, why).
		WithResource("gs://" + o.Bucket + "/" + o.Name).WithCause(resource.CausePlatform).
		WithHint("restore the object from a backup, and check the disk")
}

// verifier checks a whole object's bytes against its row while they are read. The
// last of them are given only when all were right, so that no reader takes a
// damaged object for a whole one.
type verifier struct {
	r     io.ReadCloser
	o     Object
	table *crc32.Table
	n     int64
	crc   uint32
	err   error
}

func newVerifier(o Object, r io.ReadCloser) *verifier {
	return &verifier{r: r, o: o, table: crc32.MakeTable(crc32.Castagnoli)}
}

// Read implements io.Reader.
func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil || len(p) == 0 {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	v.n += int64(n)
	v.crc = crc32.Update(v.crc, v.table, p[:n])
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		v.err = fmt.Errorf("read gs://%s/%s: %w", v.o.Bucket, v.o.Name, err)
	case v.n > v.o.Size, errors.Is(err, io.EOF) && v.n < v.o.Size:
		n, v.err = 0, damaged(v.o, fmt.Sprintf("%d bytes of %d are there", v.n, v.o.Size))
	case v.n == v.o.Size && v.crc != v.o.CRC32C:
		n, v.err = 0, damaged(v.o, fmt.Sprintf("its CRC32C is %08x, and was %08x", v.crc, v.o.CRC32C))
	case v.n == v.o.Size:
		v.err = io.EOF
	}
	return n, v.err
}

// copyBuffer is what a whole read holds in memory: large enough that system calls
// cost little beside the copying.
const copyBuffer = 256 << 10

// WriteTo implements io.WriterTo, which io.Copy prefers.
func (v *verifier) WriteTo(w io.Writer) (int64, error) {
	buf := make([]byte, min(max(v.o.Size, 512), copyBuffer))
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{v}, buf)
}

// Close implements io.Closer.
func (v *verifier) Close() error { return v.r.Close() }
