package modelformat

import (
	"bufio"
	"errors"
	"io"

	"google.golang.org/grpc/codes"

	"tategu/internal/modelformat/xgboost"
	"tategu/internal/resource"
	"tategu/internal/scan"
)

// ReadNative reads a model file of any of the formats that are evaluated here.
func ReadNative(r io.Reader) (*Native, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	head, err := in.Peek(xgboost.HeadSize)
	if err != nil && len(head) == 0 {
		return nil, resource.Errorf(codes.FailedPrecondition, "the model file cannot be read: %w", err).WithCause(resource.CauseModel)
	}
	kind := libraryOf(head)
	if kind == anyLibrary {
		return nil, resource.Errorf(codes.FailedPrecondition, "the file is no LightGBM text model and no XGBoost model").WithCause(resource.CauseModel)
	}
	model, err := kind.parse(in)
	if err != nil {
		return nil, resource.Errorf(codes.FailedPrecondition, "the file is not %s model that can be evaluated: %w", kind.article(), err).WithCause(resource.CauseModel)
	}
	return newNative(model), nil
}

// Block evaluates many instances that are given one at a time, in memory that is
// used again. It is for one goroutine.
type Block struct {
	native  *Native
	options options
	matrix  matrix
	scan    scan.Scanner
	count   int
}

// NewBlock makes a block; parameters are a JSON object as in a request, nil = none.
func (n *Native) NewBlock(parameters []byte) (*Block, error) {
	b := &Block{native: n}
	if len(parameters) == 0 {
		return b, nil
	}
	s := scan.Scanner{Data: parameters}
	if s.Literal("null") {
		return b, s.End()
	}
	if err := s.Object(func(key string) error { return n.model.parameter(&s, key, &b.options) }); err != nil {
		return nil, err
	}
	return b, s.End()
}

// Feature reports whether the model has a feature of that name.
func (n *Native) Feature(name string) bool {
	_, ok := n.model.index(name, 0)
	return ok
}

// Outputs is how many values a prediction has.
func (b *Block) Outputs() int { return b.native.model.outputs(b.options) }

// Len is the number of instances in the block.
func (b *Block) Len() int { return b.count }

// Add takes one instance, in JSON. One that is wrong adds nothing. The bytes are
// not kept.
func (b *Block) Add(instance []byte) error {
	start := len(b.matrix.rows)
	b.scan = scan.Scanner{Data: instance}
	err := b.native.instance(&b.scan, &b.matrix, alone)
	if err == nil {
		err = b.scan.End()
	}
	if syntax, ok := errors.AsType[*scan.SyntaxError](err); ok {
		err = resource.Invalid("", "the instance is not valid JSON: want %s at byte %d", syntax.Want, syntax.At)
	}
	if err != nil {
		b.matrix.rows = b.matrix.rows[:start]
		return err
	}
	b.count++
	return nil
}

// Predict evaluates the instances from up to to: Outputs() values for each, valid
// until the next call.
func (b *Block) Predict(from, to int) ([]float64, error) {
	width, outputs := b.native.model.features(), b.Outputs()
	part := matrix{rows: b.matrix.rows[from*width : to*width], rows32: b.matrix.rows32, out32: b.matrix.out32}
	b.matrix.out = grow(b.matrix.out, (to-from)*outputs)
	err := b.native.model.predict(&part, b.matrix.out, b.options)
	b.matrix.rows32, b.matrix.out32 = part.rows32, part.out32
	return b.matrix.out, err
}

// Reset empties the block.
func (b *Block) Reset() { b.matrix.rows, b.count = b.matrix.rows[:0], 0 }
