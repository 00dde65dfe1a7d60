//! Asks the model loader for a name, and again once the name is another version.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::Current;
use crate::model::Model;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// One answer of the loader.
enum Told {
    Version { etag: String, version: String, path: String },
    Unchanged,
}

/// Keeps `current` what `name` is. It never ends: while the loader is away, or a version
/// cannot be loaded, the model that is here stays.
pub fn follow(loader: &str, name: &str, current: &Current) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(90)))
        .proxy(None)
        .build()
        .into();
    let url = format!("{loader}/models/{name}?wait=60s");
    let mut known = String::new();
    let mut pause = FIRST_PAUSE;
    loop {
        match ask(&agent, &url, &known) {
            Ok(Told::Unchanged) => pause = FIRST_PAUSE,
            Ok(Told::Version { etag, version, path }) => {
                match load(&path, &version) {
                    Ok(model) => {
                        eprintln!("rust-tract: version {version}");
                        if let Ok(mut current) = current.write() {
                            *current = Some(Arc::new(model));
                        }
                    }
                    Err(error) => {
                        eprintln!("rust-tract: version {version} is not taken over: {error}")
                    }
                }
                (known, pause) = (etag, FIRST_PAUSE);
            }
            Err(error) => {
                eprintln!("rust-tract: {error}; asking again in {pause:?}");
                thread::sleep(pause);
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }
}

fn ask(agent: &ureq::Agent, url: &str, known: &str) -> Result<Told, String> {
    let mut request = agent.get(url);
    if !known.is_empty() {
        request = request.header("If-None-Match", known);
    }
    let mut response =
        request.call().map_err(|e| format!("no answer from the model loader ({url}): {e}"))?;
    if response.status() == 304 {
        return Ok(Told::Unchanged);
    }
    let etag =
        response.headers().get("ETag").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let text = response
        .body_mut()
        .read_to_string()
        .map_err(|e| format!("the model loader broke off: {e}"))?;
    let body: Value =
        serde_json::from_str(&text).map_err(|e| format!("the model loader says {text:?}: {e}"))?;
    if response.status() != 200 {
        return Err(format!(
            "the model loader says: {}",
            body["error"]["message"].as_str().unwrap_or(&text)
        ));
    }
    match (body["version"].as_str(), body["path"].as_str()) {
        (Some(version), Some(path)) => {
            Ok(Told::Version { etag, version: version.to_owned(), path: path.to_owned() })
        }
        _ => Err(format!("the model loader names no version and path: {text}")),
    }
}

fn load(path: &str, version: &str) -> Result<Model, String> {
    Model::load(&Path::new(path).join("model.onnx"), version)
}
