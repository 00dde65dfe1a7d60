package aiplatform

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/serving"
)

// predictHTTP passes the body on and adds the identity of the model to the answer.
func (p *Prediction) predictHTTP(ctx context.Context, w http.ResponseWriter, r *http.Request, name string) (err error) {
	ask, done, err := p.receive(r, serving.Request{Again: true})
	defer done()
	if err != nil {
		return tooLarge(err)
	}
	ctx, cancel, err := within(ctx, r)
	if err != nil {
		return err
	}
	defer cancel()
	answer, err := p.answer(ctx, name, ask)
	if err != nil {
		return retryHint(w, err)
	}
	if answer.Status >= http.StatusMultipleChoices {
		_, err := readAnswer(answer)
		return retryHint(w, err)
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	return p.splice(w, answer)
}

// receive puts the body into a request, or what has come of it, if the rest is about to. done
// must be called last.
func (p *Prediction) receive(r *http.Request, ask serving.Request) (serving.Request, func(), error) {
	var done func()
	var err error
	ask.Body, ask.Upload, done, err = p.bodies.Receive(r)
	return ask, done, err
}

// answer predicts, and waits for the rest of the body: net/http takes that for itself once an
// answer begins.
func (p *Prediction) answer(ctx context.Context, name string, ask serving.Request) (*serving.Response, error) {
	answer, err := p.predictor.Predict(ctx, name, ask)
	if ask.Upload == nil {
		return answer, err
	}
	if _, broken := ask.Upload.Whole(); broken != nil {
		if err == nil {
			err = answer.Body.Close()
		}
		return nil, cmp.Or(tooLarge(broken), err)
	}
	return answer, err
}

// within gives the time that the caller is willing to wait, if it says so: the
// header X-Server-Timeout, in seconds
// (cloud.google.com/apis/docs/system-parameters).
func within(ctx context.Context, r *http.Request) (context.Context, context.CancelFunc, error) {
	const header = "X-Server-Timeout"
	v := r.Header.Get(header)
	if v == "" {
		return ctx, func() {}, nil
	}
	seconds, err := strconv.ParseFloat(v, 64)
	if err != nil || !(seconds > 0) {
		return nil, nil, resource.Invalid(header, "%s is %q: want seconds", header, v)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(min(seconds, 1e6)*float64(time.Second)))
	return ctx, cancel, nil
}

// splice writes the answer, an object, with the identity fields in front. One that is
// there in whole, as most are, is one write.
func (p *Prediction) splice(w http.ResponseWriter, a *serving.Response) error {
	in := p.reader(a.Body)
	defer p.done(in)
	first, skipped, err := nextByte(in.Reader)
	if err == nil && first != '{' {
		err = errors.New("it is not a JSON object")
	}
	if err != nil {
		return notPredictions(a, err)
	}
	second, more, err := nextByte(in.Reader)
	if err != nil {
		return notPredictions(a, err)
	}
	if err := in.UnreadByte(); err != nil {
		return err
	}
	front := appendIdentity(append(in.front[:0], '{'), a)
	if second != '}' {
		front = append(front, ',')
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=UTF-8")
	left := -1 // of the answer
	if n, err := strconv.Atoi(a.Header.Get("Content-Length")); err == nil {
		left = n - skipped - 1 - more
		h.Set("Content-Length", strconv.Itoa(left+len(front)))
	}
	if rest, err := in.Peek(in.Buffered()); err == nil && len(rest) == left && left <= smallAnswer {
		front = append(front, rest...)
		if _, err := in.Discard(left); err != nil {
			return err
		}
	}
	in.front = front
	if _, err := w.Write(front); err != nil {
		return nil // the caller left: nobody is there to be told
	}
	if _, err := in.WriteTo(w); err != nil {
		panic(http.ErrAbortHandler) // the answer began already: cut it off visibly
	}
	return nil
}

// smallAnswer is copied behind its front.
const smallAnswer = 4 << 10

// splicer reads an answer and keeps the memory of what goes in front of it.
type splicer struct {
	*bufio.Reader

	front []byte
}

// reader gives one that has been used before, if there is one.
func (p *Prediction) reader(from io.Reader) *splicer {
	if in, ok := p.readers.Get().(*splicer); ok {
		in.Reset(from)
		return in
	}
	return &splicer{Reader: bufio.NewReaderSize(from, 32<<10)}
}

func (p *Prediction) done(in *splicer) {
	in.Reset(nil)
	p.readers.Put(in)
}

// nextByte reads up to the first byte that is no white space; skipped counts the
// bytes before it.
func nextByte(in *bufio.Reader) (c byte, skipped int, err error) {
	for {
		if c, err = in.ReadByte(); err != nil {
			return 0, skipped, err
		}
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c, skipped, nil
		}
		skipped++
	}
}

// rawPredictHTTP passes body and answer on as they are. Requests of generated
// REST clients, which wrap both in an HttpBody message, do not come here: the
// wire turns those into messages.
func (p *Prediction) rawPredictHTTP(ctx context.Context, w http.ResponseWriter, r *http.Request, name string) error {
	return p.passHTTP(ctx, w, r, name, serving.Request{Again: repeatable(r)})
}

func (p *Prediction) streamRawPredictHTTP(ctx context.Context, w http.ResponseWriter, r *http.Request, name string) error {
	return p.passHTTP(ctx, w, r, name, serving.Request{Stream: true, Again: repeatable(r)})
}

// passHTTP sends ask with the body and the headers of r.
func (p *Prediction) passHTTP(ctx context.Context, w http.ResponseWriter, r *http.Request, name string, ask serving.Request) (err error) {
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return resource.Unimplemented("a WebSocket through an endpoint")
	}
	ask, done, err := p.receive(r, ask)
	defer done()
	if err != nil {
		return tooLarge(err)
	}
	ctx, cancel, err := within(ctx, r)
	if err != nil {
		return err
	}
	defer cancel()
	ask.Header = passHeaders(r.Header)
	answer, err := p.answer(ctx, name, ask)
	if err != nil {
		return retryHint(w, err)
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	maps.Copy(w.Header(), passHeaders(answer.Header))
	if n := answer.Header.Get("Content-Length"); n != "" {
		w.Header().Set("Content-Length", n)
	}
	setModelHeaders(w, answer)
	contain(w.Header(), r)
	w.WriteHeader(answer.Status)
	var out io.Writer = w
	if ask.Stream {
		out = &flusher{w, http.NewResponseController(w)}
	}
	if _, err := io.Copy(out, answer.Body); err != nil && r.Context().Err() == nil {
		panic(http.ErrAbortHandler) // the answer began already: cut it off visibly
	}
	return nil
}

// contain keeps what a model's server sends from acting as a page of this server: a
// link to one of its routes would otherwise run its scripts with the rights of who
// looks at the console. Nor may it open its answers to pages of other sites where the
// caller shows no token: on loopback those would read them as the operator.
func contain(h http.Header, r *http.Request) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox")
	if r.Header.Get("Authorization") != "" {
		return
	}
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
}

func setModelHeaders(w http.ResponseWriter, a *serving.Response) {
	for key, value := range modelHeaders(a) {
		w.Header().Set(key, value)
	}
}

// passHeaders copies the headers that are about the content or the user's own:
// not those of one connection, which names some itself (RFC 9110, section 7.6.1), nor
// the caller's credentials.
func passHeaders(in http.Header) http.Header {
	out := make(http.Header, len(in))
	defer func() {
		for _, names := range in["Connection"] {
			for name := range strings.SplitSeq(names, ",") {
				out.Del(strings.TrimSpace(name))
			}
		}
	}()
	for key, values := range in {
		switch key {
		case "Authorization", "Cookie", "Set-Cookie", "Proxy-Authorization", "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer",
			"Transfer-Encoding", "Upgrade", "Content-Length", "Accept-Encoding", "Date", "Server":
			continue
		}
		if strings.HasPrefix(key, "X-Goog-") {
			continue
		}
		out[key] = values
	}
	return out
}

// flusher sends every part at once.
type flusher struct {
	w http.ResponseWriter
	c *http.ResponseController
}

func (f *flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.c.Flush()
	}
	return n, err
}
