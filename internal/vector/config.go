package vector

import (
	"math"
	"strconv"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/resource"
	"tategu/internal/vector/ann"
)

// Config is Index.metadata.config, read.
type Config struct {
	Dimensions  int
	Approximate int // approximateNeighborsCount: candidates that are compared exactly; 0 = what the build measured
	Measure     ann.Measure
	BruteForce  bool    // every vector is compared
	LeafSize    int     // treeAhConfig.leafNodeEmbeddingCount; 0 = what the build measured
	LeafPart    float64 // treeAhConfig.leafNodesToSearchPercent or fractionLeafNodesToSearch; 0 = what the build measured
	// Recall is what builds are tuned for, from the label tategu-recall: a number
	// such as 0-95, since labels have no point.
	Recall float64
}

// Contents is what of Index.metadata asks for a batch update.
type Contents struct {
	URI       string // contentsDeltaUri; "" = none
	Overwrite bool   // isCompleteOverwrite
}

// RecallLabel tunes an index for a recall, and DefaultRecall is without it.
const (
	RecallLabel   = "tategu-recall"
	DefaultRecall = 0.95
	maxDimensions = 65536
)

// ParseContents reads contentsDeltaUri and isCompleteOverwrite.
func ParseContents(metadata *structpb.Value) (Contents, error) {
	m, err := object("index.metadata", metadata)
	if err != nil {
		return Contents{}, err
	}
	var c Contents
	if c.URI, err = m.text("contentsDeltaUri"); err != nil {
		return c, err
	}
	if c.URI != "" && !strings.HasPrefix(c.URI, "gs://") {
		return c, resource.Invalid("index.metadata.contents_delta_uri", "%q is not of the form gs://BUCKET/FOLDER", c.URI)
	}
	c.Overwrite, err = m.flag("isCompleteOverwrite")
	return c, err
}

// HasConfig reports whether the metadata say anything of the configuration.
func HasConfig(metadata *structpb.Value) bool {
	m, err := object("", metadata)
	return err == nil && m.get("config") != nil
}

// ParseConfig reads the configuration of an index; names of fields are taken in
// camel and in snake case, as protobuf's JSON form does.
func ParseConfig(index *pb.Index) (Config, error) {
	c := Config{Recall: DefaultRecall}
	m, err := object("index.metadata", index.GetMetadata())
	if err != nil {
		return c, err
	}
	if m, err = m.child("config"); err != nil {
		return c, err
	}
	if m.fields == nil {
		return c, resource.Invalid("index.metadata.config", "index.metadata.config is missing").
			WithHint("give dimensions, distanceMeasureType and algorithmConfig there")
	}
	if c.Dimensions, err = m.whole("dimensions", maxDimensions); err != nil {
		return c, err
	}
	if c.Dimensions == 0 {
		return c, resource.Invalid("index.metadata.config.dimensions", "dimensions is missing")
	}
	if c.Approximate, err = m.whole("approximateNeighborsCount", math.MaxInt32); err != nil {
		return c, err
	}
	if err := c.measure(m); err != nil {
		return c, err
	}
	if err := c.algorithm(m); err != nil {
		return c, err
	}
	return c, c.recall(index.GetLabels())
}

func (c *Config) measure(m fields) error {
	distance, err := m.text("distanceMeasureType")
	if err != nil {
		return err
	}
	switch distance {
	case "", "DISTANCE_MEASURE_TYPE_UNSPECIFIED", "DOT_PRODUCT_DISTANCE":
		c.Measure.Distance = ann.DotProduct
	case "SQUARED_L2_DISTANCE":
		c.Measure.Distance = ann.SquaredL2
	case "L1_DISTANCE":
		c.Measure.Distance = ann.L1
	case "COSINE_DISTANCE":
		c.Measure.Distance = ann.Cosine
	default:
		return m.wrong("distanceMeasureType", "%q is no distance: want DOT_PRODUCT_DISTANCE, COSINE_DISTANCE, SQUARED_L2_DISTANCE or L1_DISTANCE", distance)
	}
	norm, err := m.text("featureNormType")
	if err != nil {
		return err
	}
	switch norm {
	case "", "FEATURE_NORM_TYPE_UNSPECIFIED", "NONE":
	case "UNIT_L2_NORM":
		c.Measure.UnitNorm = true
	default:
		return m.wrong("featureNormType", "%q is no normalisation: want NONE or UNIT_L2_NORM", norm)
	}
	size, err := m.text("shardSize")
	if err != nil {
		return err
	}
	switch size {
	case "", "SHARD_SIZE_UNSPECIFIED", "SHARD_SIZE_SMALL", "SHARD_SIZE_MEDIUM", "SHARD_SIZE_LARGE", "SHARD_SIZE_SO_DYNAMIC":
		return nil // one machine has one shard of any size
	}
	return m.wrong("shardSize", "%q is no size of a shard", size)
}

func (c *Config) algorithm(m fields) error {
	algorithm, err := m.child("algorithmConfig")
	if err != nil {
		return err
	}
	brute, err := algorithm.child("bruteForceConfig")
	if err != nil {
		return err
	}
	tree, err := algorithm.child("treeAhConfig")
	if err != nil {
		return err
	}
	if brute.fields != nil && tree.fields != nil {
		return algorithm.wrong("bruteForceConfig", "both treeAhConfig and bruteForceConfig are set")
	}
	c.BruteForce = brute.fields != nil
	if c.LeafSize, err = tree.whole("leafNodeEmbeddingCount", math.MaxInt32); err != nil {
		return err
	}
	percent, err := tree.number("leafNodesToSearchPercent")
	if err != nil {
		return err
	}
	if c.LeafPart, err = tree.number("fractionLeafNodesToSearch"); err != nil {
		return err
	}
	switch {
	case percent < 0 || percent > 100:
		return tree.wrong("leafNodesToSearchPercent", "%v is not between 1 and 100", percent)
	case c.LeafPart < 0 || c.LeafPart > 1:
		return tree.wrong("fractionLeafNodesToSearch", "%v is not between 0 and 1", c.LeafPart)
	case percent > 0 && c.LeafPart > 0:
		return tree.wrong("leafNodesToSearchPercent", "it is set beside fractionLeafNodesToSearch, which says the same")
	case percent > 0:
		c.LeafPart = percent / 100
	}
	return nil
}

func (c *Config) recall(labels map[string]string) error {
	label := labels[RecallLabel]
	if label == "" {
		return nil
	}
	r, err := strconv.ParseFloat(strings.Replace(label, "-", ".", 1), 64)
	if err != nil || !(r >= 0.5 && r <= 1) {
		return resource.Invalid("index.labels", "the label %s=%s is not a recall", RecallLabel, label).WithHint("write 0-90 for 0.90: from 0-50 to 1")
	}
	c.Recall = r
	return nil
}

// fields is one object of the metadata, and where it is.
type fields struct {
	at     string
	fields map[string]*structpb.Value // nil = there is none
}

func object(at string, v *structpb.Value) (fields, error) {
	switch v.GetKind().(type) {
	case nil, *structpb.Value_NullValue:
		return fields{at: at}, nil
	case *structpb.Value_StructValue:
		f := v.GetStructValue().GetFields()
		if f == nil {
			f = map[string]*structpb.Value{} // an empty object is one
		}
		return fields{at: at, fields: f}, nil
	default:
		return fields{}, resource.Invalid(at, "%s is not an object", at)
	}
}

// get finds a field by its camel case name in either spelling; null is absent.
func (f fields) get(name string) *structpb.Value {
	for _, key := range []string{name, snake(name)} {
		v := f.fields[key]
		if _, null := v.GetKind().(*structpb.Value_NullValue); v != nil && !null {
			return v
		}
	}
	return nil
}

func snake(camel string) string {
	var b strings.Builder
	for _, r := range camel {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func (f fields) wrong(name, format string, args ...any) error {
	at := f.at + "." + snake(name)
	return resource.Invalid(at, at+": "+format, args...)
}

func (f fields) child(name string) (fields, error) { return object(f.at+"."+snake(name), f.get(name)) }

func (f fields) text(name string) (string, error) {
	v := f.get(name)
	if v == nil {
		return "", nil
	}
	s, ok := v.GetKind().(*structpb.Value_StringValue)
	if !ok {
		return "", f.wrong(name, "it is not a text")
	}
	return s.StringValue, nil
}

func (f fields) flag(name string) (bool, error) {
	v := f.get(name)
	if v == nil {
		return false, nil
	}
	switch k := v.GetKind().(type) {
	case *structpb.Value_BoolValue:
		return k.BoolValue, nil
	case *structpb.Value_StringValue:
		if b, err := strconv.ParseBool(k.StringValue); err == nil {
			return b, nil
		}
	}
	return false, f.wrong(name, "it is neither true nor false")
}

// number takes digits in quotes too, as protobuf's JSON form does.
func (f fields) number(name string) (float64, error) {
	v := f.get(name)
	if v == nil {
		return 0, nil
	}
	switch k := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		return k.NumberValue, nil
	case *structpb.Value_StringValue:
		if n, err := strconv.ParseFloat(k.StringValue, 64); err == nil {
			return n, nil
		}
	}
	return 0, f.wrong(name, "it is not a number")
}

func (f fields) whole(name string, most int) (int, error) {
	n, err := f.number(name)
	if err != nil {
		return 0, err
	}
	if n != math.Trunc(n) || n < 0 || n > float64(most) {
		return 0, f.wrong(name, "%v is not a whole number from 1 to %d", n, most)
	}
	return int(n), nil
}

// Shown is metadata as a Get gives them: the configuration alone, in camel case.
func Shown(metadata *structpb.Value) *structpb.Value {
	m, err := object("", metadata)
	if err != nil || m.get("config") == nil {
		return nil
	}
	return structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"config": camel(m.get("config"))}})
}

func camel(v *structpb.Value) *structpb.Value {
	s, ok := v.GetKind().(*structpb.Value_StructValue)
	if !ok {
		return v
	}
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for key, inner := range s.StructValue.GetFields() {
		if _, null := inner.GetKind().(*structpb.Value_NullValue); null {
			continue
		}
		out.Fields[camelName(key)] = camel(inner)
	}
	return structpb.NewStructValue(out)
}

func camelName(snake string) string {
	var b strings.Builder
	upper := false
	for _, r := range snake {
		switch {
		case r == '_':
			upper = b.Len() > 0
		case upper && r >= 'a' && r <= 'z':
			b.WriteRune(r - 'a' + 'A')
			upper = false
		default:
			b.WriteRune(r)
			upper = false
		}
	}
	return b.String()
}
