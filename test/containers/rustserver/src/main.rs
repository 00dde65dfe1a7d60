//! The one file of a FROM-scratch image. Without arguments it is a model server by
//! the rules of Vertex AI; `rustserver sum IN OUT` is a task that adds up the
//! numbers of a file.

mod http;
mod json;

use std::net::TcpListener;
use std::{env, fs, process, thread};

use http::{Request, Response};

/// What the linear model multiplies its features with; further ones count as 0.
const WEIGHTS: [f64; 4] = [1.0, 2.0, 3.0, 4.0];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [] => serve(),
        ["sum", from, to] => sum(from, to),
        _ => Err("usage: rustserver [sum IN OUT]".to_string()),
    };
    if let Err(message) = result {
        eprintln!("rustserver: {message}");
        process::exit(1);
    }
}

fn serve() -> Result<(), String> {
    let port = env::var("AIP_HTTP_PORT").map_err(|_| "AIP_HTTP_PORT is not set")?;
    let listener =
        TcpListener::bind(format!("127.0.0.1:{port}")).map_err(|e| format!("listen: {e}"))?;
    println!("listening on {port}");
    for stream in listener.incoming() {
        let stream = stream.map_err(|e| format!("accept: {e}"))?;
        thread::spawn(move || {
            if let Err(e) = http::converse(stream, answer) {
                eprintln!("rustserver: {e}");
            }
        });
    }
    Ok(())
}

fn answer(request: &Request) -> Response {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/health") => Response::text(200, "ok"),
        ("POST", "/predict") if request.is_json() => match predict(&request.body) {
            Ok(body) => Response::json(body),
            Err(message) => Response::text(400, &message),
        },
        // Anything else is counted, so that large bodies are seen to arrive whole.
        ("POST", "/predict") => {
            Response::text(200, &format!("{} {}", request.body.len(), checksum(&request.body)))
        }
        _ => Response::text(404, "not here"),
    }
}

/// Adler-32 (RFC 1950).
fn checksum(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    b << 16 | a
}

/// Answers {"instances": [[x, ...], ...]} with a number for each.
fn predict(body: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(body).map_err(|e| e.to_string())?;
    let request = json::parse(text)?;
    let instances = request.get("instances").and_then(json::Value::array);
    let mut predictions = Vec::new();
    for instance in instances.ok_or("instances is no array")? {
        let features = instance.array().ok_or("an instance is no array")?;
        let mut score = 0.0;
        for (value, weight) in features.iter().zip(WEIGHTS) {
            score += weight * value.number().ok_or("a feature is no number")?;
        }
        predictions.push(score.to_string());
    }
    Ok(format!("{{\"predictions\": [{}]}}", predictions.join(", ")))
}

fn sum(from: &str, to: &str) -> Result<(), String> {
    let text = fs::read_to_string(from).map_err(|e| format!("{from}: {e}"))?;
    let mut total = 0.0;
    for word in text.split_whitespace() {
        total += word.parse::<f64>().map_err(|_| format!("{word:?} is no number"))?;
    }
    fs::write(to, total.to_string()).map_err(|e| format!("{to}: {e}"))
}
