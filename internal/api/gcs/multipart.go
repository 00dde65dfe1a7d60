package gcs

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"strconv"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// xmlStartMultipart opens an upload in parts
// (cloud.google.com/storage/docs/xml-api/post-object-multipart).
func (h *Handler) xmlStartMultipart(c *call) error {
	o, err := headerObject(c.r.Header, c.names[0], c.names[1])
	if err != nil {
		return err
	}
	conds, err := h.xmlConditions(c)
	if err != nil {
		return err
	}
	if err := h.protect(c.ctx(), o.Bucket, o.Name, &conds); err != nil {
		return err
	}
	u, err := h.blobs.StartMultipart(c.ctx(), o, conds)
	if err != nil {
		return err
	}
	return c.replyXML(struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		Xmlns    string   `xml:"xmlns,attr"`
		Bucket   string
		Key      string
		UploadID string `xml:"UploadId"`
	}{Xmlns: xmlS3Namespace, Bucket: o.Bucket, Key: o.Name, UploadID: u.ID})
}

// xmlPutPart takes one part
// (cloud.google.com/storage/docs/xml-api/put-object-multipart).
func (h *Handler) xmlPutPart(c *call) error {
	if c.r.Header.Get("X-Goog-Copy-Source") != "" {
		return resource.Unimplemented("a part that is copied from an object (x-goog-copy-source on ?partNumber)")
	}
	n, err := strconv.Atoi(c.query.Get("partNumber"))
	if err != nil {
		return resource.Invalid("partNumber", "partNumber=%q is no number", c.query.Get("partNumber"))
	}
	var conds blob.Conditions
	if err := headerHashes(c.r.Header, &conds); err != nil {
		return err
	}
	p, err := h.blobs.PutPart(c.ctx(), c.names[0], c.names[1], c.query.Get("uploadId"), n, body{c.r.Body}, conds)
	if err != nil {
		return err
	}
	c.w.Header().Set("ETag", quoted(p.ETag()))
	c.w.Header().Set("X-Goog-Hash", hashText(p.CRC32C, p.MD5))
	return c.replyEmpty(http.StatusOK)
}

// completeXML is cloud.google.com/storage/docs/xml-api/post-object-complete.
type completeXML struct {
	XMLName xml.Name `xml:"CompleteMultipartUpload"`
	Part    []struct {
		PartNumber string
		ETag       string
	}
}

func (r completeXML) parts() ([]blob.PartRef, error) {
	if len(r.Part) == 0 {
		return nil, malformed("the list of parts is empty")
	}
	refs := make([]blob.PartRef, 0, len(r.Part))
	for _, p := range r.Part {
		n, err := strconv.Atoi(p.PartNumber)
		if err != nil || p.ETag == "" {
			return nil, malformed("a part has the number %q and the ETag %q", p.PartNumber, p.ETag)
		}
		refs = append(refs, blob.PartRef{Number: n, ETag: p.ETag})
	}
	return refs, nil
}

func (h *Handler) xmlCompleteMultipart(c *call) error {
	var req completeXML
	if err := readXML(c, &req); err != nil {
		return err
	}
	refs, err := req.parts()
	if err != nil {
		return err
	}
	conds, err := h.xmlConditions(c)
	if err != nil {
		return err
	}
	if err := wholeHash(c.r.Header, &conds); err != nil {
		return err
	}
	// Asked again, it answers with the object that it made: no look at that here.
	if _, err := h.onlyNew(c.ctx(), c.names[0], &conds); err != nil {
		return err
	}
	o, err := h.blobs.CompleteMultipart(c.ctx(), c.names[0], c.names[1], c.query.Get("uploadId"), refs, conds)
	if err != nil {
		return err
	}
	setStoredHeaders(c.w.Header(), o)
	return c.replyXML(struct {
		XMLName  xml.Name `xml:"CompleteMultipartUploadResult"`
		Xmlns    string   `xml:"xmlns,attr"`
		Location string
		Bucket   string
		Key      string
		ETag     string
	}{Xmlns: xmlS3Namespace, Location: baseURL(c.r) + "/" + o.Bucket + "/" + url.PathEscape(o.Name), Bucket: o.Bucket, Key: o.Name, ETag: quoted(xmlETag(o))})
}

// wholeHash takes the CRC32C that the object is to have. Content-MD5 is the body's.
func wholeHash(h http.Header, conds *blob.Conditions) error {
	var given blob.Conditions
	if err := headerHashes(http.Header{"X-Goog-Hash": h.Values("X-Goog-Hash")}, &given); err != nil {
		return err
	}
	if len(given.MD5) > 0 {
		return resource.Invalid("md5Hash", "an object of parts has no MD5 to compare with: send its CRC32C")
	}
	conds.CRC32C = given.CRC32C
	return nil
}

func (h *Handler) xmlAbortMultipart(c *call) error {
	if err := h.blobs.AbortMultipart(c.ctx(), c.names[0], c.names[1], c.query.Get("uploadId")); err != nil {
		return err
	}
	return c.replyEmpty(http.StatusNoContent)
}

// count reads a parameter that bounds or continues a list; absent is 0.
func (c *call) count(name string) (int, error) {
	n, err := number(c.query, name)
	if err != nil || n == nil {
		return 0, err
	}
	if *n < 0 || *n > 1<<31-1 {
		return 0, resource.Invalid(name, "%s=%d is out of bounds", name, *n)
	}
	return int(*n), nil
}

// pageLimit reads how many entries a page has; asking for none is as absent.
func (c *call) pageLimit(name string) (int, error) {
	n, err := c.count(name)
	if n == 0 || n > maxKeys {
		n = maxKeys
	}
	return n, err
}

// maxKeys is the most entries of a page.
const maxKeys = 1000

type partXML struct {
	PartNumber   int
	LastModified string
	ETag         string
	Size         int64
}

func (h *Handler) xmlListParts(c *call) error {
	after, err := c.count("part-number-marker")
	if err != nil {
		return err
	}
	limit, err := c.pageLimit("max-parts")
	if err != nil {
		return err
	}
	u, err := h.blobs.GetMultipart(c.ctx(), c.names[0], c.names[1], c.query.Get("uploadId"))
	if err != nil {
		return err
	}
	parts, more, err := h.blobs.ListParts(c.ctx(), u, after, limit)
	if err != nil {
		return err
	}
	answer := struct {
		XMLName              xml.Name `xml:"ListPartsResult"`
		Xmlns                string   `xml:"xmlns,attr"`
		Bucket               string
		Key                  string
		UploadID             string `xml:"UploadId"`
		StorageClass         string
		PartNumberMarker     int
		NextPartNumberMarker int
		MaxParts             int
		IsTruncated          bool
		Part                 []partXML
	}{
		Xmlns: xmlS3Namespace, Bucket: u.Object.Bucket, Key: encodeKey(c, u.Object.Name), UploadID: u.ID, StorageClass: classOr(u.Object.StorageClass),
		PartNumberMarker: after, NextPartNumberMarker: after, MaxParts: limit, IsTruncated: more,
	}
	for _, p := range parts {
		answer.Part = append(answer.Part, partXML{PartNumber: p.Number, LastModified: xmlTime(p.Updated), ETag: quoted(p.ETag()), Size: p.Size})
		answer.NextPartNumberMarker = p.Number
	}
	return c.replyXML(answer)
}

func classOr(class string) string {
	if class == "" {
		return "STANDARD"
	}
	return class
}

type uploadXML struct {
	Key          string
	UploadID     string `xml:"UploadId"`
	StorageClass string
	Initiated    string
}

type prefixXML struct{ Prefix string }

func prefixesXML(c *call, prefixes []string) (out []prefixXML) {
	for _, p := range prefixes {
		out = append(out, prefixXML{encodeKey(c, p)})
	}
	return out
}

func (h *Handler) xmlListMultipart(c *call) error {
	q := blob.MultipartQuery{
		Prefix: c.query.Get("prefix"), Delimiter: c.query.Get("delimiter"), After: c.query.Get("key-marker"), AfterID: c.query.Get("upload-id-marker"),
	}
	var err error
	if q.Limit, err = c.pageLimit("max-uploads"); err != nil {
		return err
	}
	page, err := h.blobs.ListMultipart(c.ctx(), c.names[0], q)
	if err != nil {
		return err
	}
	answer := struct {
		XMLName            xml.Name `xml:"ListMultipartUploadsResult"`
		Xmlns              string   `xml:"xmlns,attr"`
		Bucket             string
		KeyMarker          string
		UploadIDMarker     string `xml:"UploadIdMarker"`
		NextKeyMarker      string
		NextUploadIDMarker string `xml:"NextUploadIdMarker"`
		Prefix             string
		Delimiter          string `xml:",omitempty"`
		EncodingType       string `xml:",omitempty"`
		MaxUploads         int
		IsTruncated        bool
		Upload             []uploadXML
		CommonPrefixes     []prefixXML
	}{
		Xmlns: xmlS3Namespace, Bucket: c.names[0], KeyMarker: encodeKey(c, q.After), UploadIDMarker: q.AfterID,
		NextKeyMarker: encodeKey(c, page.Next), NextUploadIDMarker: page.NextID, Prefix: encodeKey(c, q.Prefix), Delimiter: encodeKey(c, q.Delimiter),
		EncodingType: c.query.Get("encoding-type"), MaxUploads: q.Limit, IsTruncated: page.Next != "", CommonPrefixes: prefixesXML(c, page.Prefixes),
	}
	for _, u := range page.Uploads {
		answer.Upload = append(answer.Upload, uploadXML{
			Key: encodeKey(c, u.Object.Name), UploadID: u.ID, StorageClass: classOr(u.Object.StorageClass), Initiated: xmlTime(u.Created),
		})
	}
	return c.replyXML(answer)
}
