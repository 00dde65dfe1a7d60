package datapoint

import (
	"bytes"
	"encoding/csv"
	"strconv"
	"strings"
	"unicode/utf8"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
)

// crowdingName is the name of the crowding tag among the options of a CSV line.
const crowdingName = "crowding_tag"

// parseCSV reads one record: the id, the values of the vector, then in any order
// DIMENSION:VALUE of a sparse embedding, NAME=TOKEN, NAME=!TOKEN (denied),
// #NAME=NUMBER with the suffix i, f or d, and crowding_tag=TAG
// (cloud.google.com/vertex-ai/docs/vector-search/setup/format-structure).
func parseCSV(line []byte) (*pb.IndexDatapoint, *RecordError) {
	if !utf8.Valid(line) {
		return nil, wrong(InvalidEncoding, "", "the line is not UTF-8")
	}
	r := csv.NewReader(bytes.NewReader(line))
	r.FieldsPerRecord = -1
	fields, err := r.Read()
	if err != nil {
		return nil, wrong(InvalidCSV, "", "%v", err)
	}
	c := csvRecord{dp: &pb.IndexDatapoint{DatapointId: strings.TrimSpace(fields[0])}, spaces: map[string]*pb.IndexDatapoint_Restriction{}}
	for _, field := range fields[1:] {
		if err := c.field(strings.TrimSpace(field)); err != nil {
			err.ID = c.dp.DatapointId
			return nil, err
		}
	}
	return c.dp, nil
}

type csvRecord struct {
	dp     *pb.IndexDatapoint
	spaces map[string]*pb.IndexDatapoint_Restriction // of dp.Restricts
}

func (c *csvRecord) field(text string) *RecordError {
	if name, value, ok := strings.Cut(text, "="); ok {
		return c.option(name, value)
	}
	if dim, value, ok := strings.Cut(text, ":"); ok {
		return c.sparse(dim, value)
	}
	if len(c.dp.Restricts)+len(c.dp.NumericRestricts) > 0 || c.dp.CrowdingTag != nil || c.dp.SparseEmbedding != nil {
		return wrong(InvalidCSV, "", "%q comes after the embedding and is none of DIMENSION:VALUE and NAME=VALUE", text)
	}
	v, err := strconv.ParseFloat(text, 32)
	if err != nil {
		return wrong(InvalidEmbedding, "", "%q is not a number", text)
	}
	c.dp.FeatureVector = append(c.dp.FeatureVector, float32(v))
	return nil
}

func (c *csvRecord) sparse(dim, value string) *RecordError {
	d, err := strconv.ParseInt(dim, 10, 64)
	if err != nil {
		return wrong(InvalidSparseDims, "", "%q is not a sparse dimension", dim)
	}
	v, err := strconv.ParseFloat(value, 32)
	if err != nil {
		return wrong(InvalidSparse, "", "%q is not a sparse value", value)
	}
	if c.dp.SparseEmbedding == nil {
		c.dp.SparseEmbedding = &pb.IndexDatapoint_SparseEmbedding{}
	}
	c.dp.SparseEmbedding.Dimensions = append(c.dp.SparseEmbedding.Dimensions, d)
	c.dp.SparseEmbedding.Values = append(c.dp.SparseEmbedding.Values, float32(v))
	return nil
}

func (c *csvRecord) option(name, value string) *RecordError {
	switch {
	case name == "" || name == "#":
		return wrong(NamespaceMissing, "", "=%s has no namespace", value)
	case name == crowdingName:
		if c.dp.CrowdingTag != nil {
			return wrong(MultipleValues, "", "crowding_tag comes twice")
		}
		c.dp.CrowdingTag = &pb.IndexDatapoint_CrowdingTag{CrowdingAttribute: value}
		return nil
	case name[0] == '#':
		return c.number(name[1:], value)
	}
	denied, deny := strings.CutPrefix(value, "!")
	if deny {
		value = denied
	}
	if value == "" {
		return wrong(InvalidToken, "", "the namespace %q has an empty token", name)
	}
	r := c.restrict(name)
	if deny {
		r.DenyList = append(r.DenyList, value)
	} else {
		r.AllowList = append(r.AllowList, value)
	}
	return nil
}

func (c *csvRecord) restrict(namespace string) *pb.IndexDatapoint_Restriction {
	if r := c.spaces[namespace]; r != nil {
		return r
	}
	r := &pb.IndexDatapoint_Restriction{Namespace: namespace}
	c.dp.Restricts, c.spaces[namespace] = append(c.dp.Restricts, r), r
	return r
}

func (c *csvRecord) number(namespace, value string) *RecordError {
	n := &pb.IndexDatapoint_NumericRestriction{Namespace: namespace}
	bad := wrong(InvalidNumeric, "", "#%s=%s is not a number with the suffix i, f or d", namespace, value)
	if value == "" {
		return bad
	}
	digits := value[:len(value)-1]
	switch value[len(value)-1] {
	case 'i':
		v, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return bad
		}
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueInt{ValueInt: v}
	case 'f':
		v, err := strconv.ParseFloat(digits, 32)
		if err != nil {
			return bad
		}
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueFloat{ValueFloat: float32(v)}
	case 'd':
		v, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			return bad
		}
		n.Value = &pb.IndexDatapoint_NumericRestriction_ValueDouble{ValueDouble: v}
	default:
		return bad
	}
	c.dp.NumericRestricts = append(c.dp.NumericRestricts, n)
	return nil
}
