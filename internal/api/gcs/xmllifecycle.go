package gcs

import (
	"encoding/xml"
	"net/http"

	"tategu/internal/blob"
)

// lifecycleXML is cloud.google.com/storage/docs/xml-api/put-bucket-lifecycle.
type lifecycleXML struct {
	XMLName xml.Name `xml:"LifecycleConfiguration"`
	Rule    []lifecycleRuleXML
}

type lifecycleRuleXML struct {
	Action struct {
		Delete                         *struct{} `xml:",omitempty"`
		SetStorageClass                string    `xml:",omitempty"`
		AbortIncompleteMultipartUpload *struct{} `xml:",omitempty"`
	}
	Condition struct {
		Age                     *int     `xml:",omitempty"`
		CreatedBefore           string   `xml:",omitempty"`
		IsLive                  *bool    `xml:",omitempty"`
		NumberOfNewerVersions   *int     `xml:",omitempty"`
		MatchesStorageClass     []string `xml:",omitempty"`
		MatchesPrefix           []string `xml:",omitempty"`
		MatchesSuffix           []string `xml:",omitempty"`
		DaysSinceCustomTime     *int     `xml:",omitempty"`
		CustomTimeBefore        string   `xml:",omitempty"`
		DaysSinceNoncurrentTime *int     `xml:",omitempty"`
		NoncurrentTimeBefore    string   `xml:",omitempty"`
	}
}

func (h *Handler) xmlGetLifecycle(c *call) error {
	b, err := h.xmlBucket(c)
	if err != nil {
		return err
	}
	var answer lifecycleXML
	for _, r := range b.Lifecycle {
		answer.Rule = append(answer.Rule, ruleXML(r))
	}
	return c.replyXML(answer)
}

func ruleXML(r blob.LifecycleRule) (out lifecycleRuleXML) {
	switch r.Action.Type {
	case blob.LifecycleDelete:
		out.Action.Delete = &struct{}{}
	case blob.LifecycleAbortMultipart:
		out.Action.AbortIncompleteMultipartUpload = &struct{}{}
	case blob.LifecycleSetStorageClass:
		out.Action.SetStorageClass = r.Action.StorageClass
	}
	to, from := &out.Condition, r.Condition
	to.Age, to.IsLive, to.NumberOfNewerVersions = from.Age, from.IsLive, from.NumNewerVersions
	to.DaysSinceCustomTime, to.DaysSinceNoncurrentTime = from.DaysSinceCustomTime, from.DaysSinceNoncurrentTime
	to.CreatedBefore, to.CustomTimeBefore, to.NoncurrentTimeBefore = from.CreatedBefore, from.CustomTimeBefore, from.NoncurrentTimeBefore
	to.MatchesStorageClass, to.MatchesPrefix, to.MatchesSuffix = from.MatchesStorageClass, from.MatchesPrefix, from.MatchesSuffix
	return out
}

func (h *Handler) xmlPutLifecycle(c *call) error {
	var req node
	if err := readXML(c, &req); err != nil {
		return err
	}
	rules, err := lifecycleRules(req)
	if err != nil {
		return err
	}
	if err := blob.CheckLifecycle(rules); err != nil {
		return err
	}
	return h.xmlConfigure(c, http.StatusOK, func(b *blob.Bucket) error {
		b.Lifecycle = rules
		return nil
	})
}

func (h *Handler) xmlDeleteLifecycle(c *call) error {
	return h.xmlConfigure(c, http.StatusNoContent, func(b *blob.Bucket) error {
		b.Lifecycle = nil
		return nil
	})
}

func lifecycleRules(root node) ([]blob.LifecycleRule, error) {
	if root.name() != "LifecycleConfiguration" {
		return nil, malformed("the body is %s: want LifecycleConfiguration", root.name())
	}
	if err := root.expect("Rule"); err != nil {
		return nil, err
	}
	rules := make([]blob.LifecycleRule, 0, len(root.Nodes))
	for _, n := range root.Nodes {
		var r blob.LifecycleRule
		if err := n.expect("Action", "Condition"); err != nil {
			return nil, err
		}
		for _, part := range n.Nodes {
			var err error
			if part.name() == "Action" {
				err = lifecycleAction(part, &r)
			} else {
				err = lifecycleCondition(part, &r.Condition)
			}
			if err != nil {
				return nil, err
			}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func lifecycleAction(n node, r *blob.LifecycleRule) error {
	if err := n.expect(blob.LifecycleDelete, blob.LifecycleSetStorageClass, blob.LifecycleAbortMultipart); err != nil {
		return err
	}
	if len(n.Nodes) != 1 || r.Action.Type != "" {
		return malformed("a rule has one action")
	}
	if r.Action.Type = n.Nodes[0].name(); r.Action.Type == blob.LifecycleSetStorageClass {
		r.Action.StorageClass = n.Nodes[0].text()
	}
	return nil
}

func lifecycleCondition(n node, c *blob.LifecycleCondition) error {
	numbers := map[string]**int{
		"Age": &c.Age, "NumberOfNewerVersions": &c.NumNewerVersions, "DaysSinceCustomTime": &c.DaysSinceCustomTime,
		"DaysSinceNoncurrentTime": &c.DaysSinceNoncurrentTime,
	}
	dates := map[string]*string{
		"CreatedBefore": &c.CreatedBefore, "CustomTimeBefore": &c.CustomTimeBefore, "NoncurrentTimeBefore": &c.NoncurrentTimeBefore,
	}
	lists := map[string]*[]string{
		"MatchesStorageClass": &c.MatchesStorageClass, "MatchesPrefix": &c.MatchesPrefix, "MatchesSuffix": &c.MatchesSuffix,
	}
	for _, child := range n.Nodes {
		name := child.name()
		if to, ok := numbers[name]; ok {
			v, err := child.number()
			if err != nil {
				return err
			}
			*to = &v
			continue
		}
		if to, ok := dates[name]; ok {
			*to = child.text()
			continue
		}
		if to, ok := lists[name]; ok {
			*to = append(*to, child.lifecycleTexts()...)
			continue
		}
		live := child.text() == "true"
		if name != "IsLive" || !live && child.text() != "false" {
			return malformed("the condition %s %q is not known", name, child.text())
		}
		c.IsLive = &live
	}
	return nil
}

// lifecycleTexts reads <MatchesPrefix>a</MatchesPrefix>, and the form with a child
// for each text.
func (n node) lifecycleTexts() []string {
	if len(n.Nodes) == 0 {
		return []string{n.Text}
	}
	out := make([]string, 0, len(n.Nodes))
	for _, child := range n.Nodes {
		out = append(out, child.Text)
	}
	return out
}
