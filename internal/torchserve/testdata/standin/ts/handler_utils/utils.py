def send_intermediate_predict_response(ret, req_id_map, message, code, context=None):
    from ts.model_service_worker import answer

    context.streamed = True
    context.cl_socket.sendall(answer(code, message, req_id_map, ret, context, "true"))
