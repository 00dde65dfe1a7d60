package gcs

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
)

// Uploads by HTML forms: whoever has a signed policy document may upload what it
// allows (cloud.google.com/storage/docs/xml-api/post-object-forms).
const (
	maxFormFields = 100
	maxFormBytes  = 64 << 10 // of all fields but the file
)

// form is a form up to its file, which is read on from its stream.
type form struct {
	fields   map[string]string // by name in lower case
	file     *multipart.Part
	filename string
	parts    *partReader
}

// xmlForm stores the file of a form.
func (h *Handler) xmlForm(c *call) error {
	if !h.isForm(c.r) {
		if err := h.authorize(c.ctx(), c.names[0], "storage.objects.create"); err != nil {
			return err
		}
		return resource.Unimplemented("POST of bucket in the XML API").WithHint("a form is multipart/form-data")
	}
	f, err := readForm(c.r)
	if err != nil {
		return err
	}
	p, doc, err := h.verifyForm(c.r, f)
	if err != nil {
		return err
	}
	identity.Report(c.ctx(), p)
	c.r = c.r.WithContext(identity.NewContext(c.ctx(), p))
	if err := h.authorize(c.ctx(), c.names[0], "storage.objects.create"); err != nil {
		return err
	}
	o, err := f.object(c.names[0])
	if err != nil {
		return err
	}
	sizes, err := doc.check(c.names[0], f, o.Name)
	if err != nil {
		return err
	}
	var conds blob.Conditions
	if err := h.protect(c.ctx(), o.Bucket, o.Name, &conds); err != nil {
		return err
	}
	if o, err = h.blobs.Put(c.ctx(), o, &formFile{form: f, sizes: sizes}, conds); err != nil {
		return err
	}
	return c.replyForm(f, o)
}

func readForm(r *http.Request) (*form, error) {
	parts, err := relatedParts(r.Header.Get("Content-Type"), body{r.Body})
	if err != nil {
		return nil, err
	}
	f, left := &form{fields: map[string]string{}, parts: parts}, int64(maxFormBytes)
	for {
		p, err := parts.must()
		if err != nil {
			return nil, err
		}
		name := strings.ToLower(p.FormName())
		if name == "file" {
			f.file, f.filename = p, path.Base(strings.ReplaceAll(p.FileName(), `\`, "/"))
			return f, nil
		}
		value, err := io.ReadAll(io.LimitReader(p, left+1))
		if err != nil {
			return nil, asClientError(err)
		}
		if left -= int64(len(value)); left < 0 || len(f.fields) == maxFormFields {
			return nil, resource.Invalid("body", "a form has at most %d fields before its file, of %d bytes in all", maxFormFields, maxFormBytes)
		}
		if _, twice := f.fields[name]; twice || name == "" {
			return nil, resource.Invalid("body", "the field %.80q of the form is there twice, or has no name", name)
		}
		f.fields[name] = string(value)
	}
}

// verifyForm proves the policy document, of which the text as sent was signed.
func (h *Handler) verifyForm(r *http.Request, f *form) (p identity.Principal, doc policyDocument, err error) {
	for _, name := range []string{"policy", "x-goog-algorithm", "x-goog-credential", "x-goog-date", "x-goog-signature"} {
		if f.fields[name] == "" {
			if f.fields["googleaccessid"] != "" || f.fields["signature"] != "" || f.fields["x-amz-signature"] != "" {
				return p, doc, resource.Unimplemented("a policy document of version 2, or signed with an HMAC key").WithHint("sign it with %s", signAlgorithm)
			}
			return p, doc, badSignature("the form lacks the field %s", name)
		}
	}
	if a := f.fields["x-goog-algorithm"]; a == "GOOG4-HMAC-SHA256" {
		return p, doc, resource.Unimplemented("a policy document signed with an HMAC key").WithHint("sign it with %s", signAlgorithm)
	} else if a != signAlgorithm {
		return p, doc, badSignature("the algorithm %.40q is not known: want %s", a, signAlgorithm)
	}
	account, _, err := parseCredential(f.fields["x-goog-credential"], f.fields["x-goog-date"])
	if err != nil {
		return p, doc, err
	}
	signature, err := hex.DecodeString(f.fields["x-goog-signature"])
	if err != nil {
		return p, doc, mismatch("the signature is not hexadecimal")
	}
	p, err = h.auth.VerifySignature(r.Context(), account, []byte(f.fields["policy"]), signature)
	if resource.CodeOf(err) == codes.PermissionDenied {
		return p, doc, &xmlError{http.StatusForbidden, "SignatureDoesNotMatch", err}
	}
	if err != nil {
		return p, doc, err
	}
	if doc, err = parsePolicy(f.fields["policy"]); err != nil {
		return p, doc, err
	}
	if !h.now().Before(doc.Expiration) {
		return p, doc, badPolicy("the policy document expired at %s", doc.Expiration.Format(time.RFC3339))
	}
	return p, doc, nil
}

// policyDocument is what a form's signer allows.
type policyDocument struct {
	Expiration time.Time         `json:"expiration"`
	Conditions []json.RawMessage `json:"conditions"`
}

func parsePolicy(text string) (doc policyDocument, err error) {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return doc, badPolicy("the policy document is not base64")
	}
	if err := json.Unmarshal(data, &doc); err != nil || doc.Expiration.IsZero() {
		return doc, badPolicy(`the policy document is not {"expiration": TIME, "conditions": [...]}`)
	}
	return doc, nil
}

func badPolicy(format string, args ...any) error {
	return &xmlError{http.StatusBadRequest, "InvalidPolicyDocument", resource.Errorf(codes.InvalidArgument, format, args...)}
}

// sizeRange is what content-length-range allows.
type sizeRange struct{ least, most int64 }

// check holds a form against the conditions: each must hold, and each field must
// be in one, but for those that carry the signature or are to be ignored.
func (doc policyDocument) check(bucket string, f *form, key string) (sizeRange, error) {
	sizes := sizeRange{0, blob.MaxObjectSize}
	seen := map[string]bool{"policy": true, "x-goog-signature": true}
	value := func(name string) string {
		if name == "bucket" {
			return bucket
		}
		return f.fields[name]
	}
	for _, raw := range doc.Conditions {
		var exact map[string]any
		if json.Unmarshal(raw, &exact) == nil {
			for name, want := range exact {
				name = strings.ToLower(name)
				if text, ok := want.(string); !ok || value(name) != text {
					return sizes, failedPolicy(name)
				}
				seen[name] = true
			}
			continue
		}
		var list []any
		if json.Unmarshal(raw, &list) != nil || len(list) != 3 {
			return sizes, badPolicy("the condition %.120s of the policy document cannot be read", raw)
		}
		kind, _ := list[0].(string)
		if strings.EqualFold(kind, "content-length-range") {
			least, ok1 := list[1].(float64)
			most, ok2 := list[2].(float64)
			if !ok1 || !ok2 || least < 0 || most < least {
				return sizes, badPolicy("the condition %.120s of the policy document cannot be read", raw)
			}
			sizes = sizeRange{max(sizes.least, int64(least)), min(sizes.most, int64(min(most, blob.MaxObjectSize)))}
			continue
		}
		field, _ := list[1].(string)
		want, isText := list[2].(string)
		name, dollar := strings.CutPrefix(strings.ToLower(field), "$")
		if !dollar || !isText {
			return sizes, badPolicy("the condition %.120s of the policy document cannot be read", raw)
		}
		switch have := value(name); strings.ToLower(kind) {
		case "eq":
			if have != want {
				return sizes, failedPolicy(name)
			}
		case "starts-with":
			if name == "key" {
				have = key // with the file's name in its place
			}
			if !strings.HasPrefix(have, want) {
				return sizes, failedPolicy(name)
			}
		default:
			return sizes, badPolicy("the policy document has a condition %.40q, which is not known", kind)
		}
		seen[name] = true
	}
	for name := range f.fields {
		if !seen[name] && !strings.HasPrefix(name, "x-ignore-") {
			return sizes, badPolicy("the policy document does not mention the field %.80q of the form", name)
		}
	}
	if !seen["bucket"] || !seen["key"] {
		return sizes, badPolicy("the policy document does not say for which bucket and key it is")
	}
	return sizes, nil
}

func failedPolicy(field string) error {
	return badPolicy("the form does not meet the condition of the policy document on %.80q", field)
}

// object is what the fields say of the object to be.
func (f *form) object(bucket string) (blob.Object, error) {
	headers := http.Header{}
	for name, value := range f.fields {
		switch {
		case strings.HasPrefix(name, "x-goog-meta-"), slices.Contains([]string{
			"content-type", "content-encoding", "content-disposition", "content-language", "cache-control", "x-goog-storage-class", "x-goog-custom-time",
		}, name):
			headers.Set(name, value)
		case strings.HasPrefix(name, "x-ignore-"), slices.Contains([]string{
			"policy", "key", "bucket", "x-goog-algorithm", "x-goog-credential", "x-goog-date", "x-goog-signature",
			"success_action_status", "success_action_redirect",
		}, name):
		default:
			return blob.Object{}, resource.Unimplemented("the form field " + name[:min(len(name), 80)])
		}
	}
	return headerObject(headers, bucket, strings.ReplaceAll(f.fields["key"], "${filename}", f.filename))
}

// formFile is the file of a form, held to its size and to the form's end.
type formFile struct {
	*form
	sizes sizeRange
	read  int64
}

func (f *formFile) Read(p []byte) (int, error) {
	n, err := f.file.Read(p)
	f.read += int64(n)
	if f.read > f.sizes.most {
		return n, &xmlError{http.StatusBadRequest, "EntityTooLarge", resource.Invalid("file", "the file has more than %d bytes", f.sizes.most)}
	}
	if !errors.Is(err, io.EOF) {
		if err != nil {
			err = asClientError(err)
		}
		return n, err
	}
	if _, next := f.parts.next(); !errors.Is(next, io.EOF) {
		if next == nil {
			return n, resource.Invalid("body", "the file is not the last field of the form")
		}
		return n, asClientError(next)
	}
	if f.read < f.sizes.least {
		return n, &xmlError{http.StatusBadRequest, "EntityTooSmall", resource.Invalid("file", "the file has less than %d bytes", f.sizes.least)}
	}
	return n, io.EOF
}

// replyForm answers as the form asked for.
func (c *call) replyForm(f *form, o blob.Object) error {
	location := baseURL(c.r) + "/" + o.Bucket + "/" + url.PathEscape(o.Name)
	header := c.w.Header()
	header.Set("ETag", quoted(xmlETag(o)))
	header.Set("X-Goog-Generation", strconv.FormatInt(o.Generation, 10))
	if to, err := url.Parse(f.fields["success_action_redirect"]); err == nil && (to.Scheme == "https" || to.Scheme == "http") {
		q := to.Query()
		q.Set("bucket", o.Bucket)
		q.Set("key", o.Name)
		q.Set("etag", quoted(xmlETag(o)))
		to.RawQuery = q.Encode()
		header.Set("Location", to.String())
		return c.replyEmpty(http.StatusSeeOther)
	}
	switch f.fields["success_action_status"] {
	case "200":
		return c.replyEmpty(http.StatusOK)
	case "201":
		data, err := xml.Marshal(struct {
			XMLName                     xml.Name `xml:"PostResponse"`
			Location, Bucket, Key, ETag string
		}{Location: location, Bucket: o.Bucket, Key: o.Name, ETag: quoted(xmlETag(o))})
		if err != nil {
			return err
		}
		header.Set("Location", location)
		header.Set("Content-Type", "application/xml; charset=UTF-8")
		header.Set("Content-Length", strconv.Itoa(len(xml.Header)+len(data)))
		c.w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(c.w, xml.Header+string(data)) // the client may be gone
		return nil
	}
	return c.replyEmpty(http.StatusNoContent)
}
