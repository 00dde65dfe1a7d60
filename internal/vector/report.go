package vector

import (
	"fmt"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/vector/datapoint"
)

// maxErrors bounds the record errors of one operation; the counts are of all.
const maxErrors = 50

// report gathers what was read, file by file.
type report struct {
	files  []*pb.NearestNeighborSearchOperationMetadata_ContentValidationStats
	errors int
	bytes  int64
	valid  int64
	wrong  int64
}

func newReport() *report { return &report{} }

func (r *report) message() *pb.NearestNeighborSearchOperationMetadata {
	return &pb.NearestNeighborSearchOperationMetadata{ContentValidationStats: r.files, DataBytesCount: r.bytes}
}

// file begins the next file.
func (r *report) file(uri string, bytes int64) *fileReport {
	stats := &pb.NearestNeighborSearchOperationMetadata_ContentValidationStats{SourceGcsUri: uri}
	r.files = append(r.files, stats)
	r.bytes += bytes
	return &fileReport{report: r, stats: stats}
}

type fileReport struct {
	report *report
	stats  *pb.NearestNeighborSearchOperationMetadata_ContentValidationStats
}

func (f *fileReport) good(dp *pb.IndexDatapoint) {
	f.report.valid++
	if dp != nil && dp.GetSparseEmbedding() != nil {
		f.stats.ValidSparseRecordCount++
		if len(dp.GetFeatureVector()) == 0 {
			return
		}
	}
	f.stats.ValidRecordCount++
}

// bad counts a record that cannot be taken, and keeps the first ones with the place.
func (f *fileReport) bad(wrong *datapoint.RecordError, number int, raw string) {
	f.report.wrong++
	switch wrong.Type {
	case datapoint.InvalidSparse, datapoint.InvalidSparseDims:
		f.stats.InvalidSparseRecordCount++
	default:
		f.stats.InvalidRecordCount++
	}
	if f.report.errors >= maxErrors {
		return
	}
	f.report.errors++
	f.stats.PartialErrors = append(f.stats.PartialErrors, &pb.NearestNeighborSearchOperationMetadata_RecordError{
		ErrorType: wrong.Type, ErrorMessage: fmt.Sprintf("record %d: %s", number, wrong.Message), SourceGcsUri: f.stats.SourceGcsUri,
		EmbeddingId: wrong.ID, RawRecord: raw,
	})
}
