package gcs

import (
	"bytes"
	"crypto/md5" //nolint:gosec // the API's checksum, not a secret
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// Namespaces of answers: bodies of the storage service's own, and those that S3
// clients read (cloud.google.com/storage/docs/xml-api).
const (
	xmlNamespace   = "http://doc.s3.amazonaws.com/2006-03-01"
	xmlS3Namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
)

// maxXML bounds a body: the longest is a list of 10,000 parts.
const maxXML = 4 << 20

// xmlRoute is one thing that the XML API does. Callers need all of permissions;
// where none is listed, serve asks for them itself.
type xmlRoute struct {
	serve       method
	permissions string
}

// xmlTable lists what is served in the XML style: verb, place and subresource.
func (h *Handler) xmlTable() map[string]xmlRoute {
	const (
		read, change = "storage.buckets.get", "storage.buckets.update"
		parts        = "storage.multipartUploads.create storage.objects.create"
	)
	return map[string]xmlRoute{
		"GET service": {h.xmlListBuckets, ""},

		"GET bucket":          {h.xmlList, "storage.objects.list"},
		"GET bucket versions": {h.xmlList, "storage.objects.list"},
		"HEAD bucket":         {h.xmlHeadBucket, read},
		"PUT bucket":          {h.xmlCreateBucket, ""},
		"DELETE bucket":       {h.xmlDeleteBucket, "storage.buckets.delete"},
		"POST bucket":         {h.xmlForm, ""},
		"POST bucket delete":  {h.xmlDeleteMany, "storage.objects.delete"},
		"GET bucket uploads":  {h.xmlListMultipart, "storage.multipartUploads.list"},

		"GET object":              {h.download, ""},
		"HEAD object":             {h.download, ""},
		"PUT object":              {h.xmlPut, "storage.objects.create"},
		"DELETE object":           {h.xmlDelete, "storage.objects.delete"},
		"POST object":             {h.xmlPost, "storage.objects.create"},
		"PUT object compose":      {h.xmlCompose, "storage.objects.get storage.objects.create"},
		"PUT object upload_id":    {h.resume, ""},
		"DELETE object upload_id": {h.cancel, ""},
		"POST object uploads":     {h.xmlStartMultipart, parts},
		"PUT object uploadId":     {h.xmlPutPart, parts},
		"POST object uploadId":    {h.xmlCompleteMultipart, parts},
		"DELETE object uploadId":  {h.xmlAbortMultipart, "storage.multipartUploads.abort"},
		"GET object uploadId":     {h.xmlListParts, "storage.multipartUploads.listParts"},

		"GET bucket location":       {h.xmlGetLocation, read},
		"GET bucket storageClass":   {h.xmlGetStorageClass, read},
		"PUT bucket storageClass":   {h.xmlPutStorageClass, change},
		"GET bucket tagging":        {h.xmlGetTagging, read},
		"PUT bucket tagging":        {h.xmlPutTagging, change},
		"DELETE bucket tagging":     {h.xmlDeleteTagging, change},
		"GET bucket versioning":     {h.xmlGetVersioning, read},
		"PUT bucket versioning":     {h.xmlPutVersioning, change},
		"GET bucket cors":           {h.xmlGetCORS, read},
		"PUT bucket cors":           {h.xmlPutCORS, change},
		"DELETE bucket cors":        {h.xmlDeleteCORS, change},
		"GET bucket lifecycle":      {h.xmlGetLifecycle, read},
		"PUT bucket lifecycle":      {h.xmlPutLifecycle, change},
		"DELETE bucket lifecycle":   {h.xmlDeleteLifecycle, change},
		"GET bucket encryption":     {h.xmlNoConfig("EncryptionConfiguration"), read},
		"DELETE bucket encryption":  {h.xmlDeleteNothing, change},
		"GET bucket website":        {h.xmlNoConfig("WebsiteConfiguration"), read},
		"DELETE bucket website":     {h.xmlDeleteNothing, change},
		"GET bucket logging":        {h.xmlNoConfig("Logging"), read},
		"GET bucket billing":        {h.xmlGetBilling, read},
		"GET bucket requestPayment": {h.xmlGetRequestPayment, read},

		"GET bucket acl":              {refuseACL, "storage.buckets.getIamPolicy"},
		"PUT bucket acl":              {refuseACL, "storage.buckets.setIamPolicy"},
		"GET bucket defaultObjectAcl": {refuseACL, "storage.buckets.getIamPolicy"},
		"PUT bucket defaultObjectAcl": {refuseACL, "storage.buckets.setIamPolicy"},
		"GET object acl":              {refuseACL, "storage.objects.getIamPolicy"},
		"PUT object acl":              {refuseACL, "storage.objects.setIamPolicy"},
	}
}

// subresources are the parameters that make a request one about something else
// than the bucket or object itself.
func subresources() []string {
	return []string{
		"acl", "defaultObjectAcl", "billing", "compose", "cors", "customPlacementConfig", "delete", "encryption", "encryptionConfig", "legal-hold",
		"lifecycle", "location", "logging", "notification", "object-lock", "ownershipControls", "policy", "policyStatus", "publicAccessBlock",
		"replication", "requestPayment", "restore", "retention", "select", "storageClass", "tagging", "torrent", "uploadId", "upload_id", "uploads",
		"versioning", "versions", "website",
	}
}

// xml serves one request of the XML API.
func (h *Handler) xml(c *call) error {
	c.xml = true
	what := []string{c.r.Method, "object"}
	switch {
	case c.names[0] == "" && c.names[1] == "":
		what[1] = "service"
	case c.names[1] == "":
		what[1] = "bucket"
	}
	for _, sub := range subresources() {
		if c.query.Has(sub) {
			what = append(what, sub)
		}
	}
	route, ok := h.xmlRoutes[strings.Join(what, " ")]
	if !ok {
		if len(what) > 2 {
			what[2] = "?" + strings.Join(what[2:], "&")
			what = what[:3]
		}
		return resource.Unimplemented(what[0] + " of " + strings.Join(what[1:], " ") + " in the XML API")
	}
	for permission := range strings.FieldsSeq(route.permissions) {
		if err := h.authorize(c.ctx(), c.names[0], permission); err != nil {
			return err
		}
	}
	if err := xmlHeaders(c); err != nil {
		return err
	}
	return route.serve(c)
}

// xmlHeaders moves the preconditions that the XML API has in headers to the
// parameters that the JSON API has, and refuses headers that nothing would honour.
func xmlHeaders(c *call) error {
	for _, condition := range []string{"Generation-Match", "Generation-Not-Match", "Metageneration-Match", "Metageneration-Not-Match"} {
		if v := c.r.Header.Get("X-Goog-If-" + condition); v != "" {
			c.query.Set("if"+strings.ReplaceAll(condition, "-", ""), v)
		}
	}
	if v := c.r.Header.Get("X-Goog-Acl"); strings.HasPrefix(v, "public") || v == "authenticated-read" {
		return refuseACL(c)
	}
	for _, name := range []string{"X-Goog-Object-Lock-Mode", "X-Goog-Object-Lock-Retain-Until-Date", "X-Goog-Bucket-Object-Lock-Enabled"} {
		if c.r.Header.Get(name) != "" {
			return resource.Unimplemented("header " + strings.ToLower(name) + " (the JSON API has retention)")
		}
	}
	return refuseS3(c.r.Header)
}

// refuseS3 refuses what S3 clients say in headers of their own: passed over, a
// copy would become an empty object, and signed chunks a part of the bytes.
func refuseS3(h http.Header) error {
	for name, values := range h {
		rest, ok := strings.CutPrefix(name, "X-Amz-")
		if !ok {
			continue
		}
		switch rest {
		case "Date", "User-Agent", "Request-Payer", "Expected-Bucket-Owner":
			continue
		case "Content-Sha256":
			if !strings.HasPrefix(values[0], "STREAMING-") {
				continue
			}
		}
		return resource.Unimplemented("header " + strings.ToLower(name)).WithHint("the storage service's own headers start with x-goog-")
	}
	return nil
}

// refuseACL answers as the cloud does where access is uniform over the bucket, as
// it is over all buckets here.
func refuseACL(*call) error {
	return resource.Invalid("acl", "access control lists are not used when uniform bucket-level access is enabled").
		WithHint("set the bucket's IAM policy")
}

// readXML decodes a bounded body whose root is of v's name, and verifies the
// hashes that the headers promise of it.
func readXML(c *call, v any) error {
	data, err := io.ReadAll(io.LimitReader(body{c.r.Body}, maxXML+1))
	if err != nil {
		return err
	}
	if len(data) > maxXML {
		return malformed("the body has more than %d bytes", maxXML)
	}
	if v := c.r.Header.Get("Content-MD5"); v != "" {
		want, err := decodeHash("md5Hash", v, md5.Size)
		if err != nil {
			return err
		}
		if sum := md5.Sum(data); !bytes.Equal(sum[:], want) { //nolint:gosec // as above
			return resource.Invalid("md5Hash", "the MD5 of the body is %x, not %x as given: %w", sum, want, blob.ErrDigest)
		}
	}
	return parseXMLBody(data, v)
}

// parseXMLBody reads one document: neither less nor more.
func parseXMLBody(data []byte, v any) error {
	d := xml.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(v); errors.Is(err, io.EOF) {
		return malformed("the body is empty, and XML is wanted")
	} else if err != nil {
		return malformed("the body is not the XML that is wanted: %w", err)
	}
	for {
		switch t, err := d.Token(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return malformed("the body goes on behind its end: %w", err)
		default:
			if text, ok := t.(xml.CharData); ok && len(bytes.TrimSpace(text)) == 0 {
				continue
			}
			if _, ok := t.(xml.Comment); ok {
				continue
			}
			return malformed("the body goes on behind its end")
		}
	}
}

func (c *call) replyXML(v any) error {
	data, err := xml.Marshal(v)
	if err != nil {
		return err
	}
	header := c.w.Header()
	// Node's client reads an answer as text only when its type says text.
	header.Set("Content-Type", "text/xml; charset=UTF-8")
	header.Set("Content-Length", strconv.Itoa(len(xml.Header)+len(data)))
	c.w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(c.w, xml.Header+string(data)) // the client may be gone
	return nil
}

func (c *call) replyEmpty(status int) error {
	if status != http.StatusNoContent {
		c.w.Header().Set("Content-Length", "0")
	}
	c.w.WriteHeader(status)
	return nil
}

// replyStored answers an upload: in the XML API by headers.
func (c *call) replyStored(o blob.Object) error {
	if !c.xml {
		return c.reply(objectJSON(baseURL(c.r), o))
	}
	header := c.w.Header()
	header.Set("ETag", quoted(xmlETag(o)))
	setStoredHeaders(header, o)
	return c.replyEmpty(http.StatusOK)
}

// xmlETag is the MD5 in hex where there is one, as S3 clients compare it.
func xmlETag(o blob.Object) string {
	if len(o.MD5) == md5.Size {
		return hex.EncodeToString(o.MD5)
	}
	return "-" + etag(o.Generation, o.Metageneration)
}

func quoted(s string) string { return `"` + s + `"` }

func xmlTime(t time.Time) string { return t.UTC().Format(timeFormat) }

// hashText is the value of X-Goog-Hash.
func hashText(crc uint32, md5 []byte) string {
	s := "crc32c=" + crcText(crc)
	if len(md5) > 0 {
		s += ",md5=" + base64.StdEncoding.EncodeToString(md5)
	}
	return s
}

// node is an XML element whose form is checked by hand: what nothing would
// honour must not be dropped unseen.
type node struct {
	XMLName xml.Name
	Text    string `xml:",chardata"`
	Nodes   []node `xml:",any"`
}

func (n node) name() string { return n.XMLName.Local }
func (n node) text() string { return strings.TrimSpace(n.Text) }

// expect refuses children of other names.
func (n node) expect(names ...string) error {
	for _, child := range n.Nodes {
		if !slices.Contains(names, child.name()) {
			return malformed("element %s in %s is not known: want %s", child.name(), n.name(), strings.Join(names, ", "))
		}
	}
	return nil
}

func (n node) number() (int, error) {
	v, err := strconv.ParseInt(n.text(), 10, 32)
	if err != nil || v < 0 {
		return 0, malformed("element %s %q is no number", n.name(), n.text())
	}
	return int(v), nil
}
