package torchserve

const (
	inferencePackage  = "org.pytorch.serve.grpc.inference"
	managementPackage = "org.pytorch.serve.grpc.management"
	oipPackage        = "org.pytorch.serve.grpc.openinference"

	inferenceService  = "/" + inferencePackage + ".InferenceAPIsService/"
	managementService = "/" + managementPackage + ".ManagementAPIsService/"
	oipService        = "/" + oipPackage + ".GRPCInferenceService/"
)

// inferenceProto is the service on port 7070.
func inferenceProto() protoFile {
	return protoFile{
		path: "inference.proto", pkg: inferencePackage, imports: []string{"google/protobuf/empty.proto", "google/rpc/status.proto"},
		messages: []protoMessage{
			{"PredictionsRequest", "1 model_name string; 2 model_version string; 3 input map:string:bytes; 4 sequence_id optional string"},
			{"PredictionResponse", "1 prediction bytes; 2 sequence_id optional string; 3 status optional .google.rpc.Status"},
			{"TorchServeHealthResponse", "1 health string"},
		},
		service: "InferenceAPIsService",
		methods: []protoMethod{
			{name: "Ping", in: ".google.protobuf.Empty", out: "TorchServeHealthResponse"},
			{name: "Predictions", in: "PredictionsRequest", out: "PredictionResponse"},
			{name: "StreamPredictions", in: "PredictionsRequest", out: "PredictionResponse", server: true},
			{name: "StreamPredictions2", in: "PredictionsRequest", out: "PredictionResponse", client: true, server: true},
		},
	}
}

// managementProto is the service on port 7071.
func managementProto() protoFile {
	const answer = "ManagementResponse"
	return protoFile{
		path: "management.proto", pkg: managementPackage,
		messages: []protoMessage{
			{answer, "1 msg string"},
			{"DescribeModelRequest", "1 model_name string; 2 model_version string; 3 customized bool"},
			{"ListModelsRequest", "1 limit int32; 2 next_page_token int32"},
			{"RegisterModelRequest", "1 batch_size int32; 2 handler string; 3 initial_workers int32; 4 max_batch_delay int32; 5 model_name string; 6 response_timeout int32;" +
				"7 runtime string; 8 synchronous bool; 9 url string; 10 s3_sse_kms bool; 11 startup_timeout int32"},
			{"ScaleWorkerRequest", "1 model_name string; 2 model_version string; 3 max_worker int32; 4 min_worker int32; 5 number_gpu int32; 6 synchronous bool; 7 timeout int32"},
			{"SetDefaultRequest", "1 model_name string; 2 model_version string"},
			{"UnregisterModelRequest", "1 model_name string; 2 model_version string"},
		},
		service: "ManagementAPIsService",
		methods: []protoMethod{
			{name: "DescribeModel", in: "DescribeModelRequest", out: answer},
			{name: "ListModels", in: "ListModelsRequest", out: answer},
			{name: "RegisterModel", in: "RegisterModelRequest", out: answer},
			{name: "ScaleWorker", in: "ScaleWorkerRequest", out: answer},
			{name: "SetDefault", in: "SetDefaultRequest", out: answer},
			{name: "UnregisterModel", in: "UnregisterModelRequest", out: answer},
		},
	}
}

// oipProto is the Open Inference Protocol, in the package that TorchServe gave it.
func oipProto() protoFile {
	tensor := "1 name string; 2 datatype string; 3 shape repeated int64; 4 parameters map:string:InferParameter; 5 contents InferTensorContents"
	return protoFile{
		path: "open_inference_grpc.proto", pkg: oipPackage,
		messages: []protoMessage{
			{"ServerLiveRequest", ""},
			{"ServerLiveResponse", "1 live bool"},
			{"ServerReadyRequest", ""},
			{"ServerReadyResponse", "1 ready bool"},
			{"ModelReadyRequest", "1 name string; 2 version string"},
			{"ModelReadyResponse", "1 ready bool"},
			{"ServerMetadataRequest", ""},
			{"ServerMetadataResponse", "1 name string; 2 version string; 3 extensions repeated string"},
			{"ModelMetadataRequest", "1 name string; 2 version string"},
			{"ModelMetadataResponse", "1 name string; 2 versions repeated string; 3 platform string;" +
				"4 inputs repeated ModelMetadataResponse.TensorMetadata; 5 outputs repeated ModelMetadataResponse.TensorMetadata"},
			{"ModelMetadataResponse.TensorMetadata", "1 name string; 2 datatype string; 3 shape repeated int64"},
			{"ModelInferRequest", "1 model_name string; 2 model_version string; 3 id string; 4 parameters map:string:InferParameter;" +
				"5 inputs repeated ModelInferRequest.InferInputTensor; 6 outputs repeated ModelInferRequest.InferRequestedOutputTensor; 7 raw_input_contents repeated bytes"},
			{"ModelInferRequest.InferInputTensor", tensor},
			{"ModelInferRequest.InferRequestedOutputTensor", "1 name string; 2 parameters map:string:InferParameter"},
			{"ModelInferResponse", "1 model_name string; 2 model_version string; 3 id string; 4 parameters map:string:InferParameter;" +
				"5 outputs repeated ModelInferResponse.InferOutputTensor; 6 raw_output_contents repeated bytes"},
			{"ModelInferResponse.InferOutputTensor", tensor},
			{"InferParameter", "1 bool_param oneof:parameter_choice:bool; 2 int64_param oneof:parameter_choice:int64; 3 string_param oneof:parameter_choice:string"},
			{"InferTensorContents", "1 bool_contents repeated bool; 2 int_contents repeated int32; 3 int64_contents repeated int64; 4 uint_contents repeated uint32;" +
				"5 uint64_contents repeated uint64; 6 fp32_contents repeated float; 7 fp64_contents repeated double; 8 bytes_contents repeated bytes"},
		},
		service: "GRPCInferenceService",
		methods: []protoMethod{
			{name: "ServerLive", in: "ServerLiveRequest", out: "ServerLiveResponse"},
			{name: "ServerReady", in: "ServerReadyRequest", out: "ServerReadyResponse"},
			{name: "ModelReady", in: "ModelReadyRequest", out: "ModelReadyResponse"},
			{name: "ServerMetadata", in: "ServerMetadataRequest", out: "ServerMetadataResponse"},
			{name: "ModelMetadata", in: "ModelMetadataRequest", out: "ModelMetadataResponse"},
			{name: "ModelInfer", in: "ModelInferRequest", out: "ModelInferResponse"},
		},
	}
}
