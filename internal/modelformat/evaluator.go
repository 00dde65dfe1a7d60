package modelformat

import (
	"fmt"
	"math"
	"strconv"

	"tategu/internal/modelformat/lightgbm"
	"tategu/internal/modelformat/xgboost"
	"tategu/internal/resource"
	"tategu/internal/scan"
)

// evaluator is a model of one of the formats. Rows are row-major matrices of
// features() columns in which NaN is a missing value, outputs of outputs() columns.
type evaluator interface {
	describe() string
	// hint says what to send instead of the name of a category.
	hint() string
	features() int
	feature(i int) string
	// index finds a feature; next is where it probably is.
	index(name string, next int) (int, bool)
	// parameter reads the value of a request's parameter.
	parameter(s *scan.Scanner, name string, o *options) error
	outputs(o options) int
	// predict fills out. It allocates nothing that grows with the rows but in m.
	predict(m *matrix, out []float64, o options) error
}

// options are the parameters of a request.
type options struct {
	raw        bool // raw scores (LightGBM) or margins (XGBoost)
	begin, end int  // boosting rounds, XGBoost; end 0 is all
}

// lightgbmModel evaluates LightGBM models.
type lightgbmModel struct {
	*lightgbm.Model
	byName map[string]int
}

func newLightGBM(m *lightgbm.Model) lightgbmModel {
	l := lightgbmModel{m, make(map[string]int, len(m.Features()))}
	for i, name := range m.Features() {
		l.byName[name] = i
	}
	return l
}

func (l lightgbmModel) describe() string {
	return "LightGBM in process: " + strconv.Itoa(l.Trees()) + " trees, " + strconv.Itoa(l.features()) + " features"
}

func (l lightgbmModel) hint() string {
	return "a LightGBM text model takes the number of a category, not its name"
}
func (l lightgbmModel) features() int        { return len(l.Features()) }
func (l lightgbmModel) feature(i int) string { return l.Features()[i] }
func (l lightgbmModel) outputs(options) int  { return l.Outputs() }

func (l lightgbmModel) index(name string, next int) (int, bool) {
	if next < l.features() && l.Features()[next] == name {
		return next, true
	}
	i, ok := l.byName[name]
	return i, ok
}

func (l lightgbmModel) parameter(s *scan.Scanner, name string, o *options) (err error) {
	if name != "raw_score" {
		return resource.Invalid("parameters", "parameter %q is not known to a LightGBM model: want raw_score", name)
	}
	o.raw, err = flag(s, name)
	return err
}

func (l lightgbmModel) predict(m *matrix, out []float64, o options) error {
	l.Predict(m.rows, out, o.raw)
	return nil
}

func flag(s *scan.Scanner, name string) (bool, error) {
	v, ok := s.Boolean()
	if !ok {
		return false, resource.Invalid("parameters", "%s must be true or false", name)
	}
	return v, nil
}

// xgboostModel evaluates XGBoost models. Predictions are those of Booster.predict,
// which uses all rounds, also after early stopping.
type xgboostModel struct{ *xgboost.Model }

func (x xgboostModel) describe() string {
	return fmt.Sprintf("XGBoost %s in process: %s, %s, %d trees, %d features", x.Version(), x.Booster(), x.Objective(), x.Trees(), x.Features())
}

func (x xgboostModel) hint() string {
	return "the model takes the number of a category, not its name"
}
func (x xgboostModel) features() int                        { return x.Features() }
func (x xgboostModel) feature(i int) string                 { return x.Feature(i) }
func (x xgboostModel) index(name string, _ int) (int, bool) { return x.Index(name) }

func (x xgboostModel) outputs(o options) int {
	if o.raw {
		return x.Groups()
	}
	return x.Outputs()
}

func (x xgboostModel) parameter(s *scan.Scanner, name string, o *options) (err error) {
	switch name {
	case "output_margin":
		o.raw, err = flag(s, name)
		return err
	case "best_iteration":
		best, err := flag(s, name)
		if err != nil || !best {
			return err
		}
		round, ok := x.Best()
		if !ok {
			return resource.Invalid("parameters", "best_iteration: the model was trained without early stopping")
		}
		o.begin, o.end = 0, round+1
	case "iteration_range":
		var rounds []float64
		if err := s.Array(func() error {
			v, ok := s.Number()
			if !ok || v != math.Trunc(v) || math.Abs(v) > math.MaxInt32 || len(rounds) == 2 {
				return resource.Invalid("parameters", "iteration_range must be a list of two integers")
			}
			rounds = append(rounds, v)
			return nil
		}); err != nil {
			return err
		}
		if len(rounds) != 2 {
			return resource.Invalid("parameters", "iteration_range must be a list of two integers")
		}
		o.begin, o.end = int(rounds[0]), int(rounds[1])
	default:
		return resource.Invalid("parameters", "parameter %q is not known to an XGBoost model: want output_margin, iteration_range or best_iteration", name)
	}
	if err := x.Check(xgboost.Options{Begin: o.begin, End: o.end}); err != nil {
		return resource.Invalid("parameters", "%s: %w", name, err)
	}
	return nil
}

// blockValues is how many margins are kept at a time where a prediction has fewer:
// multi:softmax makes one class of all of them.
const blockValues = 1 << 16

// predict goes through floats, as the library does.
func (x xgboostModel) predict(m *matrix, out []float64, o options) error {
	width, groups, outputs := x.Features(), x.Groups(), x.outputs(o)
	count := len(out) / outputs
	m.rows32 = grow(m.rows32, len(m.rows))
	for i, v := range m.rows {
		if m.rows32[i] = float32(v); v > math.MaxFloat32 || v < -math.MaxFloat32 {
			if math.IsInf(float64(m.rows32[i]), 0) {
				return resource.Invalid("instances", "instance %d: feature %q is too large for a 32-bit float: %v", i/width, x.Feature(i%width), v)
			}
		}
	}
	most := count
	if outputs < groups {
		most = max(1, blockValues/groups)
	}
	for rows := m.rows32; count > 0; {
		n := min(count, most)
		m.out32 = grow(m.out32, n*groups)
		x.Predict(rows[:n*width], m.out32, xgboost.Options{Margin: o.raw, Begin: o.begin, End: o.end})
		for i := range out[:n*outputs] {
			out[i] = float64(m.out32[i/outputs*groups+i%outputs])
		}
		rows, out, count = rows[n*width:], out[n*outputs:], count-n
	}
	return nil
}
