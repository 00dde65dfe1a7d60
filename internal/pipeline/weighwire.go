package pipeline

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// WeighWire is WeighJSON for a request in its wire form, which is of message d.
// Bytes that are no message pass.
func WeighWire(data []byte, d protoreflect.MessageDescriptor) error {
	for len(data) > 0 {
		number, body, rest := cutField(data)
		if rest == nil {
			return nil
		}
		data = rest
		f := d.Fields().ByNumber(number)
		if body == nil || f == nil || f.Message() == nil || f.IsMap() {
			continue
		}
		var err error
		switch f.Name() {
		case "pipeline_spec":
			err = weighStruct(body)
		case "pipeline_job", "schedule", "create_pipeline_job_request":
			err = WeighWire(body, f.Message())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cutField takes the first field off a message. body is nil but for one of bytes,
// rest is nil where the message is none.
func cutField(data []byte) (number protowire.Number, body, rest []byte) {
	number, kind, n := protowire.ConsumeTag(data)
	if n < 0 {
		return 0, nil, nil
	}
	size := protowire.ConsumeFieldValue(number, kind, data[n:])
	if size < 0 {
		return 0, nil, nil
	}
	if kind == protowire.BytesType {
		if body, _ = protowire.ConsumeBytes(data[n:]); body == nil {
			body = []byte{}
		}
	}
	return number, body, data[n+size:]
}

func weighStruct(data []byte) error {
	if len(data) > maxSpec {
		return tooBig(len(data))
	}
	m := newMeter()
	if err := walkStruct(data, m, maxWalk); err != nil {
		return err
	}
	return m.end()
}

// maxWalk is deeper than any text that the wire decodes.
const maxWalk = 400

// walkStruct shows the meter a google.protobuf.Struct: fields = 1 is a map.
func walkStruct(data []byte, m *meter, left int) error {
	for len(data) > 0 && left > 0 {
		number, entry, rest := cutField(data)
		if rest == nil {
			return nil
		}
		data = rest
		if number != 1 || entry == nil {
			continue
		}
		var key string
		var value []byte
		for len(entry) > 0 {
			number, body, rest := cutField(entry)
			if rest == nil {
				return nil
			}
			entry = rest
			switch {
			case number == 1 && body != nil && m.depth < pathKept:
				key = string(body)
			case number == 2 && body != nil:
				value = body
			}
		}
		if err := walkValue(key, value, m, left); err != nil {
			return err
		}
	}
	return nil
}

// walkValue shows the meter a google.protobuf.Value: string_value = 3,
// struct_value = 5, list_value = 6.
func walkValue(key string, data []byte, m *meter, left int) error {
	for len(data) > 0 {
		number, body, rest := cutField(data)
		if rest == nil {
			return nil
		}
		data = rest
		var err error
		switch {
		case body == nil:
			continue
		case number == 3 && m.wants(key):
			err = m.text(key, string(body))
		case number == 5:
			if err = m.open(key); err == nil {
				err = walkStruct(body, m, left-1)
				m.close()
			}
		case number == 6:
			if err = m.open(key); err == nil {
				err = walkList(body, m, left-1)
				m.close()
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// walkList shows the meter a google.protobuf.ListValue: values = 1.
func walkList(data []byte, m *meter, left int) error {
	for len(data) > 0 && left > 0 {
		number, body, rest := cutField(data)
		if rest == nil {
			return nil
		}
		data = rest
		if number == 1 && body != nil {
			if err := walkValue("", body, m, left); err != nil {
				return err
			}
		}
	}
	return nil
}
