package gcs

import (
	"encoding/xml"
	"errors"
	"reflect"
	"strings"
	"testing"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// checkXMLError: whatever a body is, its refusal is the client's and has a name.
func checkXMLError(t *testing.T, err error) {
	t.Helper()
	status, _ := answerOf(err)
	if code := xmlCode(err, status); status != 400 || code != "MalformedXML" {
		t.Errorf("%d %s: %v", status, code, err)
	}
}

// FuzzXMLBody reads any text as each of the bodies of the XML API.
func FuzzXMLBody(f *testing.F) {
	for _, s := range []string{
		"", "<", "text", "<?xml version='1.0' encoding='utf-8'?>\n<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"e\"</ETag></Part></CompleteMultipartUpload>\n",
		"<CompleteMultipartUpload xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Part><PartNumber>99999999999999999999</PartNumber><ETag/></Part></CompleteMultipartUpload>",
		"<ComposeRequest><Component><Name>a</Name><Generation>1</Generation><IfGenerationMatch>2</IfGenerationMatch></Component></ComposeRequest>",
		"<Delete><Quiet>true</Quiet><Object><Key>k</Key><VersionId>7</VersionId></Object></Delete>", "<Delete><Quiet>maybe</Quiet></Delete>",
		"<CreateBucketConfiguration><LocationConstraint>US</LocationConstraint><Autoclass/></CreateBucketConfiguration>",
		"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
		"<StorageClass>STANDARD</StorageClass>", "<Delete/><Delete/>", "<Delete/> <!-- end -->", "<!DOCTYPE x [<!ENTITY a 'b'>]><Delete>&a;</Delete>",
		"<?xml version='1.0' encoding='utf-16'?><Delete/>", "<Delete>\x00</Delete>", strings.Repeat("<a>", 200),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, v := range []any{&completeXML{}, &composeXML{}, &deleteXML{}, &createXML{}, &taggingXML{}, &versioningXML{}, &storageClassXML{}, &node{}} {
			if err := parseXMLBody([]byte(text), v); err != nil {
				checkXMLError(t, err)
				continue
			}
			if c, ok := v.(*completeXML); ok {
				if refs, err := c.parts(); err != nil {
					checkXMLError(t, err)
				} else if len(refs) != len(c.Part) {
					t.Errorf("%d parts of %d", len(refs), len(c.Part))
				}
			}
		}
	})
}

// FuzzXMLLifecycle: rules that are taken come back as they were when they are
// written out and read again.
func FuzzXMLLifecycle(f *testing.F) {
	for _, s := range []string{
		"<LifecycleConfiguration/>",
		"<LifecycleConfiguration><Rule><Action><Delete/></Action><Condition><Age>30</Age><IsLive>true</IsLive></Condition></Rule></LifecycleConfiguration>",
		"<LifecycleConfiguration><Rule><Action><SetStorageClass>NEARLINE</SetStorageClass></Action><Condition><CreatedBefore>2026-01-01</CreatedBefore>" +
			"<MatchesStorageClass>STANDARD</MatchesStorageClass><NumberOfNewerVersions>0</NumberOfNewerVersions></Condition></Rule></LifecycleConfiguration>",
		"<LifecycleConfiguration><Rule><Action><AbortIncompleteMultipartUpload/></Action><Condition><Age>1</Age><MatchesPrefix> a </MatchesPrefix>" +
			"<MatchesSuffix><Suffix>b</Suffix></MatchesSuffix></Condition></Rule></LifecycleConfiguration>",
		"<LifecycleConfiguration><Rule><Action><Delete/><Delete/></Action></Rule></LifecycleConfiguration>",
		"<LifecycleConfiguration><Rule><Action/><Action/></Rule></LifecycleConfiguration>",
		"<LifecycleConfiguration><Rule><Condition><Age>-1</Age></Condition></Rule></LifecycleConfiguration>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		read := func(text []byte) ([]blob.LifecycleRule, error) {
			var n node
			if err := parseXMLBody(text, &n); err != nil {
				return nil, err
			}
			rules, err := lifecycleRules(n)
			if err == nil {
				err = blob.CheckLifecycle(rules)
			}
			return rules, err
		}
		rules, err := read([]byte(text))
		if err != nil {
			if status, _ := answerOf(err); status != 400 {
				t.Errorf("%v", err)
			}
			return
		}
		var out lifecycleXML
		for _, r := range rules {
			out.Rule = append(out.Rule, ruleXML(r))
		}
		again, err := xml.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(again)
		if err != nil || !reflect.DeepEqual(got, rules) {
			t.Errorf("%s came back as %+v, %v, was %+v", again, got, err, rules)
		}
	})
}

func FuzzXMLCORS(f *testing.F) {
	for _, s := range []string{
		"<CorsConfig/>", "<CorsConfig><Cors/></CorsConfig>",
		"<CorsConfig><Cors><Origins><Origin>*</Origin><Origin>https://a</Origin></Origins><Methods><Method>GET</Method></Methods>" +
			"<ResponseHeaders><ResponseHeader>x-goog-*</ResponseHeader></ResponseHeaders><MaxAgeSec>60</MaxAgeSec></Cors></CorsConfig>",
		"<CorsConfig><Cors><MaxAgeSec>-1</MaxAgeSec></Cors></CorsConfig>", "<CorsConfig><Cors><Origins><Other/></Origins></Cors></CorsConfig>",
	} {
		f.Add(s, "https://a", "GET", "x-goog-a,b")
	}
	f.Fuzz(func(t *testing.T, text, origin, method, header string) {
		var n node
		err := parseXMLBody([]byte(text), &n)
		var rules []blob.CORSRule
		if err == nil {
			rules, err = corsRules(n)
		}
		if err != nil {
			checkXMLError(t, err)
			return
		}
		for _, r := range rules {
			if allowsOrigin(r, origin) && len(r.Origin) == 0 || allowsMethod(r, method) && len(r.Method) == 0 || allowsHeader(r, header) && len(r.ResponseHeader) == 0 {
				t.Errorf("%+v allows %q %q %q", r, origin, method, header)
			}
		}
	})
}

func FuzzParseRanges(f *testing.F) {
	for _, s := range []string{"", "bytes=0-1", "bytes=0-1,4-5", "bytes=-1,0-", "bytes=0-9,0-9", "bytes=,", "bytes=50-,60-", "bytes=0-0, x", "bytes=1-1,,2-2"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		spans, err := parseRanges(header, size)
		if err != nil {
			if !errors.Is(err, errRange) || len(spans) > 0 {
				t.Errorf("%v, %v", spans, err)
			}
			return
		}
		var total int64
		for _, s := range spans {
			if s.offset < 0 || s.length <= 0 || s.offset+s.length > size {
				t.Errorf("%q of %d: %+v", header, size, s)
			}
			total += s.length
		}
		if total > size || len(spans) > maxRanges {
			t.Errorf("%q of %d: %d bytes in %d ranges", header, size, total, len(spans))
		}
	})
}

// FuzzCopySource: what names an object names it wholly.
func FuzzCopySource(f *testing.F) {
	for _, s := range []string{"/bucket/x", "bucket/a%2Fb", "bucket", "/", "bucket/", "%zz/x", "bucket/x?generation=1", "//x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		bucket, name, err := parseCopySource(header)
		if err != nil {
			if resource.CodeOf(err).String() != "InvalidArgument" {
				t.Error(err)
			}
			return
		}
		if bucket == "" || name == "" || strings.Contains(bucket, "/") {
			t.Errorf("%q is %q, %q", header, bucket, name)
		}
	})
}
