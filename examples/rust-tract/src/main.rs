//! A model server whose model is a name in the registry: it asks the model loader
//! (`tategu model serve`) where `NAME@ALIAS` is, runs the ONNX file with Tract, answers
//! the container contract, and goes over to the next version without a failed request.

mod follow;
mod model;

use std::env;
use std::io::{self, Read};
use std::process::exit;
use std::sync::{Arc, RwLock};
use std::thread;

use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response, Server};

use model::Model;

/// The model that answers now; none before the first one is here.
pub type Current = Arc<RwLock<Option<Arc<Model>>>>;

/// The largest body of a request, in bytes.
const LARGEST: u64 = 16 << 20;

struct Routes {
    health: String,
    predict: String,
}

fn main() {
    let Some(name) = env::args().nth(1) else {
        eprintln!("rust-tract: name a model: rust-tract NAME@ALIAS");
        exit(2);
    };
    let loader = variable("MODEL_LOADER", "http://127.0.0.1:8095");
    let address =
        format!("{}:{}", variable("HOST", "127.0.0.1"), variable("AIP_HTTP_PORT", "8080"));
    let routes = Routes {
        health: variable("AIP_HEALTH_ROUTE", "/health"),
        predict: variable("AIP_PREDICT_ROUTE", "/predict"),
    };
    let server = match Server::http(&address) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("rust-tract: listen on {address}: {error}");
            exit(1);
        }
    };
    eprintln!("rust-tract: {name} is on http://{}", server.server_addr());
    let current = Current::default();
    let threads = thread::available_parallelism().map_or(2, |n| n.get().max(2));
    thread::scope(|scope| {
        scope.spawn(|| follow::follow(&loader, &name, &current));
        for _ in 0..threads {
            scope.spawn(|| serve(&server, &routes, &current));
        }
    });
}

fn variable(name: &str, otherwise: &str) -> String {
    env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| otherwise.to_owned())
}

fn serve(server: &Server, routes: &Routes, current: &Current) {
    loop {
        match server.recv() {
            Ok(request) => {
                // A caller that left reads no answer.
                let _ = answer(request, routes, current);
            }
            Err(error) => eprintln!("rust-tract: {error}"),
        }
    }
}

/// Answers one request with the model of this moment, whatever becomes of it meanwhile.
fn answer(mut request: Request, routes: &Routes, current: &Current) -> io::Result<()> {
    let model = current.read().map_or(None, |current| current.clone());
    let path = request.url().split('?').next().unwrap_or_default().to_owned();
    let Some(model) = model else {
        return send(request, 503, &json!({"error": "the model is not here yet"}), "");
    };
    if path == routes.health && *request.method() == Method::Get {
        return send(request, 200, &json!({"version": model.version}), &model.version);
    }
    if path != routes.predict {
        return send(
            request,
            404,
            &json!({"error": format!("there is no {path}")}),
            &model.version,
        );
    }
    let mut body = Vec::new();
    request.as_reader().take(LARGEST + 1).read_to_end(&mut body)?;
    let (status, told) = match predict(&model, &body) {
        Ok(predictions) => (200, json!({"predictions": predictions})),
        Err(error) => (400, json!({"error": error})),
    };
    send(request, status, &told, &model.version)
}

/// Reads `{"instances": [[...], ...]}` and gives a prediction for each instance.
fn predict(model: &Model, body: &[u8]) -> Result<Vec<Value>, String> {
    if body.len() as u64 > LARGEST {
        return Err(format!("the body is larger than {LARGEST} bytes"));
    }
    let body: Value =
        serde_json::from_slice(body).map_err(|e| format!("the body is no JSON: {e}"))?;
    let instances = body["instances"].as_array().ok_or("the body has no list \"instances\"")?;
    let rows = instances.iter().enumerate().map(|(i, instance)| {
        let numbers = instance
            .as_array()
            .and_then(|row| row.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
        numbers.ok_or_else(|| format!("instance {i} is no list of numbers"))
    });
    let scores = model.run(&rows.collect::<Result<Vec<_>, _>>()?)?;
    Ok(scores.into_iter().map(|row| json!(row)).collect())
}

fn send(request: Request, status: u16, body: &Value, version: &str) -> io::Result<()> {
    let mut response = Response::from_string(body.to_string()).with_status_code(status);
    for (name, value) in [("Content-Type", "application/json"), ("X-Model-Version", version)] {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    request.respond(response)
}
