package gcs

import (
	"encoding/xml"
	"maps"
	"net/http"
	"slices"
	"strings"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// xmlBucket gives the bucket that the request names under its preconditions.
func (h *Handler) xmlBucket(c *call) (blob.Bucket, error) {
	b, err := h.blobs.GetBucket(c.ctx(), c.names[0])
	if err != nil {
		return b, err
	}
	conds, err := conditions(c.query, "if")
	if err != nil {
		return b, err
	}
	return b, conds.CheckBucket(b)
}

// xmlConfigure changes a bucket's settings under the request's preconditions.
func (h *Handler) xmlConfigure(c *call, status int, change func(*blob.Bucket) error) error {
	conds, err := conditions(c.query, "if")
	if err != nil {
		return err
	}
	if _, err := h.blobs.UpdateBucket(c.ctx(), c.names[0], conds, change); err != nil {
		return err
	}
	return c.replyEmpty(status)
}

func (h *Handler) xmlGetLocation(c *call) error {
	b, err := h.xmlBucket(c)
	if err != nil {
		return err
	}
	return c.replyXML(struct {
		XMLName xml.Name `xml:"LocationConstraint"`
		Xmlns   string   `xml:"xmlns,attr"`
		Value   string   `xml:",chardata"`
	}{Xmlns: xmlNamespace, Value: strings.ToUpper(b.Location)})
}

type storageClassXML struct {
	XMLName xml.Name `xml:"StorageClass"`
	Value   string   `xml:",chardata"`
}

func (h *Handler) xmlGetStorageClass(c *call) error {
	b, err := h.xmlBucket(c)
	if err != nil {
		return err
	}
	return c.replyXML(storageClassXML{Value: b.StorageClass})
}

func (h *Handler) xmlPutStorageClass(c *call) error {
	var req storageClassXML
	if err := readXML(c, &req); err != nil {
		return err
	}
	class := strings.TrimSpace(req.Value)
	if class == "" {
		return malformed("the storage class is empty")
	}
	if err := checkClass(class); err != nil {
		return err
	}
	return h.xmlConfigure(c, http.StatusOK, func(b *blob.Bucket) error {
		b.StorageClass = class
		return nil
	})
}

type tagXML struct{ Key, Value string }

// taggingXML are a bucket's labels.
type taggingXML struct {
	XMLName xml.Name `xml:"Tagging"`
	Tags    []tagXML `xml:"TagSet>Tag"`
}

func (h *Handler) xmlGetTagging(c *call) error {
	b, err := h.xmlBucket(c)
	if err != nil {
		return err
	}
	if len(b.Labels) == 0 {
		return &xmlError{http.StatusNotFound, "NoSuchTagSet", resource.Invalid("tagging", "bucket %s has no tags", b.Name)}
	}
	var answer taggingXML
	for _, key := range sortedKeys(b.Labels) {
		answer.Tags = append(answer.Tags, tagXML{key, b.Labels[key]})
	}
	return c.replyXML(answer)
}

func (h *Handler) xmlPutTagging(c *call) error {
	var req taggingXML
	if err := readXML(c, &req); err != nil {
		return err
	}
	labels := make(map[string]string, len(req.Tags))
	for _, t := range req.Tags {
		if _, twice := labels[t.Key]; twice || t.Key == "" {
			return malformed("the tag key %q is empty or there twice", t.Key)
		}
		labels[t.Key] = t.Value
	}
	return h.xmlConfigure(c, http.StatusOK, func(b *blob.Bucket) error {
		b.Labels = labels
		return nil
	})
}

func (h *Handler) xmlDeleteTagging(c *call) error {
	return h.xmlConfigure(c, http.StatusNoContent, func(b *blob.Bucket) error {
		b.Labels = nil
		return nil
	})
}

type versioningXML struct {
	XMLName xml.Name `xml:"VersioningConfiguration"`
	Status  string   `xml:",omitempty"`
}

func (h *Handler) xmlGetVersioning(c *call) error {
	b, err := h.xmlBucket(c)
	if err != nil {
		return err
	}
	var answer versioningXML
	if b.Versioning {
		answer.Status = "Enabled"
	}
	return c.replyXML(answer)
}

func (h *Handler) xmlPutVersioning(c *call) error {
	var req versioningXML
	if err := readXML(c, &req); err != nil {
		return err
	}
	if req.Status != "Enabled" && req.Status != "Suspended" {
		return malformed("Status %q is not Enabled or Suspended", req.Status)
	}
	return h.xmlConfigure(c, http.StatusOK, func(b *blob.Bucket) error {
		b.Versioning = req.Status == "Enabled"
		return nil
	})
}

// xmlNoConfig is the empty answer for a setting that no bucket here has.
func (h *Handler) xmlNoConfig(root string) method {
	return func(c *call) error {
		if _, err := h.xmlBucket(c); err != nil {
			return err
		}
		return c.replyXML(struct{ XMLName xml.Name }{xml.Name{Local: root}})
	}
}

// xmlDeleteNothing removes a setting that no bucket here has.
func (h *Handler) xmlDeleteNothing(c *call) error {
	return h.xmlConfigure(c, http.StatusNoContent, func(*blob.Bucket) error { return nil })
}

func (h *Handler) xmlGetBilling(c *call) error {
	if _, err := h.xmlBucket(c); err != nil {
		return err
	}
	return c.replyXML(struct {
		XMLName       xml.Name `xml:"BillingConfiguration"`
		RequesterPays string
	}{RequesterPays: "Disabled"})
}

func (h *Handler) xmlGetRequestPayment(c *call) error {
	if _, err := h.xmlBucket(c); err != nil {
		return err
	}
	return c.replyXML(struct {
		XMLName xml.Name `xml:"RequestPaymentConfiguration"`
		Payer   string
	}{Payer: "BucketOwner"})
}

// corsXML is cloud.google.com/storage/docs/xml-api/put-bucket-cors.
type corsXML struct {
	XMLName xml.Name      `xml:"CorsConfig"`
	Rules   []corsRuleXML `xml:"Cors"`
}

type corsRuleXML struct {
	Origins         []string `xml:"Origins>Origin,omitempty"`
	Methods         []string `xml:"Methods>Method,omitempty"`
	ResponseHeaders []string `xml:"ResponseHeaders>ResponseHeader,omitempty"`
	MaxAgeSec       int      `xml:",omitempty"`
}

func (h *Handler) xmlGetCORS(c *call) error {
	b, err := h.xmlBucket(c)
	if err != nil {
		return err
	}
	var answer corsXML
	for _, r := range b.CORS {
		answer.Rules = append(answer.Rules, corsRuleXML{Origins: r.Origin, Methods: r.Method, ResponseHeaders: r.ResponseHeader, MaxAgeSec: r.MaxAgeSeconds})
	}
	return c.replyXML(answer)
}

func (h *Handler) xmlPutCORS(c *call) error {
	var req node
	if err := readXML(c, &req); err != nil {
		return err
	}
	rules, err := corsRules(req)
	if err != nil {
		return err
	}
	return h.xmlConfigure(c, http.StatusOK, func(b *blob.Bucket) error {
		b.CORS = rules
		return nil
	})
}

func (h *Handler) xmlDeleteCORS(c *call) error {
	return h.xmlConfigure(c, http.StatusNoContent, func(b *blob.Bucket) error {
		b.CORS = nil
		return nil
	})
}

func corsRules(root node) ([]blob.CORSRule, error) {
	if root.name() != "CorsConfig" {
		return nil, malformed("the body is %s: want CorsConfig", root.name())
	}
	if err := root.expect("Cors"); err != nil {
		return nil, err
	}
	rules := make([]blob.CORSRule, 0, len(root.Nodes))
	for _, n := range root.Nodes {
		var r blob.CORSRule
		if err := n.expect("Origins", "Methods", "ResponseHeaders", "MaxAgeSec"); err != nil {
			return nil, err
		}
		for _, part := range n.Nodes {
			var err error
			switch part.name() {
			case "Origins":
				err = part.texts("Origin", &r.Origin)
			case "Methods":
				err = part.texts("Method", &r.Method)
			case "ResponseHeaders":
				err = part.texts("ResponseHeader", &r.ResponseHeader)
			case "MaxAgeSec":
				r.MaxAgeSeconds, err = part.number()
			}
			if err != nil {
				return nil, err
			}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// texts appends the texts of the children, all of one name.
func (n node) texts(name string, to *[]string) error {
	if err := n.expect(name); err != nil {
		return err
	}
	for _, child := range n.Nodes {
		*to = append(*to, child.text())
	}
	return nil
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
