package torchserve

import "google.golang.org/protobuf/reflect/protoreflect"

// Methods of every service, for clients of tests.
func Methods() (map[string]protoreflect.MethodDescriptor, error) {
	reg, err := buildFiles([]protoFile{inferenceProto(), managementProto(), oipProto()})
	if err != nil {
		return nil, err
	}
	return methodsOf(reg), nil
}
