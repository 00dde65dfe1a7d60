package gcs_test

import (
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// keysOf reads names and prefixes of a list.
func keysOf(t *testing.T, body []byte) (keys []string, next, token string) {
	t.Helper()
	var page struct {
		Contents, Version     []struct{ Key string }
		CommonPrefixes        []struct{ Prefix string }
		NextMarker            string
		NextContinuationToken string
	}
	if err := xml.Unmarshal(body, &page); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	for _, p := range page.CommonPrefixes {
		keys = append(keys, p.Prefix)
	}
	for _, c := range slices.Concat(page.Contents, page.Version) {
		keys = append(keys, c.Key)
	}
	slices.Sort(keys)
	return keys, page.NextMarker, page.NextContinuationToken
}

func TestXMLList(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, name := range []string{"a b", "a+b", "d/1", "d/2", "e/f/g", "日<&>", "z\x01"} {
		s.put(name, name)
	}
	for _, tt := range []struct{ query, want string }{
		{"", "a b|a+b|d/1|d/2|e/f/g|z�|日<&>"},
		{"delimiter=/", "a b|a+b|d/|e/|z�|日<&>"},
		{"prefix=d/&delimiter=/", "d/1|d/2"},
		{"encoding-type=url", "a%20b|a%2Bb|d/1|d/2|e/f/g|z%01|%E6%97%A5%3C%26%3E"},
		{"marker=d/1", "d/2|e/f/g|z�|日<&>"},
		{"list-type=2&start-after=d/1&delimiter=/", "e/|z�|日<&>"},
	} {
		want := strings.Split(tt.want, "|")
		for _, size := range []int{1, 2, 1000} {
			var got []string
			for step := ""; ; {
				w := s.do("GET", "/bucket?"+tt.query+"&max-keys="+strconv.Itoa(size)+step, nil)
				check(t, w, 200)
				keys, next, token := keysOf(t, w.Body.Bytes())
				got = append(got, keys...)
				if token != "" {
					step = "&continuation-token=" + token
					continue
				}
				if next == "" || strings.Contains(tt.query, "marker") {
					break
				}
				if !strings.Contains(tt.query, "encoding-type") {
					next = strings.NewReplacer("+", "%2B", " ", "%20", "&", "%26", "�", "%01").Replace(next)
				}
				step = "&marker=" + next
			}
			slices.Sort(want)
			slices.Sort(got)
			if size < 1000 && strings.Contains(tt.query, "marker") {
				continue // the first page alone
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s by %d: %q, want %q", tt.query, size, got, want)
			}
		}
	}
	check(t, s.do("GET", "/bucket?max-keys=0", nil), 200, "<IsTruncated>false</IsTruncated>")
	check(t, s.do("GET", "/bucket?list-type=2", nil), 200, "<KeyCount>7</KeyCount>")

	body := "<Delete><Object><Key>d/1</Key></Object><Object><Key>none</Key></Object><Object><Key>d/2</Key><VersionId>x</VersionId></Object></Delete>"
	check(t, s.do("POST", "/bucket?delete", strings.NewReader(body)), 200, "<Deleted><Key>d/1</Key></Deleted>", "<Deleted><Key>none</Key></Deleted>",
		"<Error><Key>d/2</Key><VersionId>x</VersionId><Code>InvalidArgument</Code>")
	w := s.do("POST", "/bucket?delete", strings.NewReader("<Delete><Quiet>true</Quiet><Object><Key>d/2</Key></Object></Delete>"))
	if check(t, w, 200); strings.Contains(w.Body.String(), "Deleted") {
		t.Errorf("quiet: %s", w.Body)
	}
	s.checkMissing("d/")
}

func TestXMLBuckets(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const host = "http://storage.googleapis.com"
	body := "<CreateBucketConfiguration><LocationConstraint>europe-west1</LocationConstraint><StorageClass>NEARLINE</StorageClass></CreateBucketConfiguration>"
	check(t, s.do("PUT", host+"/new", strings.NewReader(body), "X-Goog-Project-Id", "p"), 200)
	check(t, s.do("PUT", "http://third.storage.googleapis.com/", nil, "X-Goog-Project-Id", "p"), 200)
	check(t, s.do("GET", host+"/?max-keys=2", nil, "X-Goog-Project-Id", "p"), 200, "<Name>bucket</Name>", "<Name>new</Name>", "<NextMarker>new</NextMarker>")
	check(t, s.do("GET", host+"/?marker=new", nil, "X-Goog-Project-Id", "p"), 200, "<Name>third</Name>")
	check(t, s.do("HEAD", host+"/new", nil), 200)
	check(t, s.do("HEAD", host+"/none", nil), 404)
	check(t, s.do("GET", host+"/new?location", nil), 200, "EUROPE-WEST1</LocationConstraint>")
	check(t, s.do("GET", host+"/new?storageClass", nil), 200, "<StorageClass>NEARLINE</StorageClass>")
	configs := map[string]string{
		"storageClass": "<StorageClass>COLDLINE</StorageClass>",
		"versioning":   "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
		"tagging":      "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag><Tag><Key>b</Key><Value></Value></Tag></TagSet></Tagging>",
		"cors": "<CorsConfig><Cors><Origins><Origin>https://a.example</Origin><Origin>https://b.example</Origin></Origins><Methods><Method>GET</Method></Methods>" +
			"<ResponseHeaders><ResponseHeader>X-A</ResponseHeader></ResponseHeaders><MaxAgeSec>60</MaxAgeSec></Cors></CorsConfig>",
		"lifecycle": lifecycleBody("<Delete></Delete>", "<Age>3</Age><IsLive>false</IsLive><NumberOfNewerVersions>2</NumberOfNewerVersions><MatchesPrefix>a</MatchesPrefix><MatchesPrefix>b</MatchesPrefix>"),
	}
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		check(t, s.do("PUT", "/new?"+name, strings.NewReader(configs[name])), 200)
		if got := strings.TrimPrefix(s.do("GET", "/new?"+name, nil).Body.String(), xml.Header); got != configs[name] {
			t.Errorf("%s came back as %s, want %s", name, got, configs[name])
		}
		if name == "cors" || name == "lifecycle" || name == "tagging" {
			check(t, s.do("DELETE", "/new?"+name, nil), 204)
			if got := s.do("GET", "/new?"+name, nil).Body.String(); strings.Contains(got, "<Rule>") || strings.Contains(got, "<Cors>") || strings.Contains(got, "<Tag>") {
				t.Errorf("%s after it was deleted: %s", name, got)
			}
		}
	}
	check(t, s.do("PUT", "/new?lifecycle", strings.NewReader(lifecycleBody("<AbortIncompleteMultipartUpload/>", "<Age>7</Age>"))), 200)
	check(t, s.do("GET", "/new?lifecycle", nil), 200, "<AbortIncompleteMultipartUpload></AbortIncompleteMultipartUpload>")
	for name, part := range map[string]string{
		"encryption": "EncryptionConfiguration", "website": "WebsiteConfiguration", "logging": "Logging", "billing": "<RequesterPays>Disabled",
		"requestPayment": "BucketOwner",
	} {
		check(t, s.do("GET", "/new?"+name, nil), 200, part)
	}
	check(t, s.do("DELETE", host+"/third", nil, "X-Goog-If-Metageneration-Match", "7"), 412)
	check(t, s.do("DELETE", host+"/third", nil), 204)
	check(t, s.do("GET", host+"/third", nil), 404, "NoSuchBucket")
}

// TestXMLVersions: a list of generations says which is live, and pages between them.
func TestXMLVersions(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	check(t, s.do("PUT", "/bucket?versioning", strings.NewReader("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")), 200)
	for i := range 3 {
		s.put("x", strconv.Itoa(i))
	}
	s.put("y", "1")
	w := s.do("GET", "/bucket?versions", nil)
	check(t, w, 200, "<IsLatest>true</IsLatest>", "<IsLatest>false</IsLatest>", "<DeletedTime>")
	if keys, _, _ := keysOf(t, w.Body.Bytes()); fmt.Sprint(keys) != "[x x x y]" {
		t.Errorf("%v", keys)
	}
	var got []string
	for step := ""; ; {
		w := s.do("GET", "/bucket?versions&max-keys=1"+step, nil)
		var page struct {
			Version                          []struct{ Key, Generation string }
			NextMarker, NextGenerationMarker string
		}
		if err := xml.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Version {
			got = append(got, v.Key)
			check(t, s.do("GET", "/bucket/"+v.Key+"?generation="+v.Generation, nil), 200)
		}
		if page.NextMarker == "" {
			break
		}
		step = "&marker=" + page.NextMarker + "&generation-marker=" + page.NextGenerationMarker
	}
	if fmt.Sprint(got) != "[x x x y]" {
		t.Errorf("by one: %v", got)
	}
}
