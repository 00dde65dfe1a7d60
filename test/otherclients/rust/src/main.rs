//! Drives the unmodified crate google-cloud-aiplatform-v1 against an endpoint of a
//! running server:
//!
//!     cargo run -- http://127.0.0.1:8090 ENDPOINT '[[1, 2]]' '[0.5]'
//!
//! The last two are instances and the predictions that they have. It prints a line a
//! check and "N passed, N failed".

use google_cloud_aiplatform_v1::client::PredictionService;
use google_cloud_api::model::HttpBody;
use google_cloud_auth::credentials::anonymous;
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

struct Probe {
    client: PredictionService,
    endpoint: String,
    instances: Vec<Value>,
    want: Vec<Value>,
}

impl Probe {
    async fn predict(&self) -> Result<(), Failure> {
        let answer = self
            .client
            .predict()
            .set_endpoint(&self.endpoint)
            .set_instances(self.instances.clone())
            .send()
            .await?;
        self.compare(&answer.predictions)?;
        if answer.deployed_model_id.is_empty() || answer.model_display_name != "m" {
            return Err(format!("the answer does not say which model gave it: {answer:?}").into());
        }
        Ok(())
    }

    async fn raw(&self) -> Result<(), Failure> {
        let body = serde_json::to_vec(&json!({"instances": self.instances}))?;
        let answer = self
            .client
            .raw_predict()
            .set_endpoint(&self.endpoint)
            .set_http_body(
                HttpBody::new()
                    .set_content_type("application/json")
                    .set_data(body),
            )
            .send()
            .await?;
        let answer: Value = serde_json::from_slice(&answer.data)?;
        let found = answer["predictions"]
            .as_array()
            .ok_or_else(|| format!("no predictions in {answer}"))?;
        self.compare(found)
    }

    async fn missing(&self) -> Result<(), Failure> {
        let (place, _) = self.endpoint.rsplit_once('/').ok_or("no place")?;
        let answer = self
            .client
            .predict()
            .set_endpoint(format!("{place}/1"))
            .set_instances(self.instances.clone())
            .send()
            .await;
        match answer {
            Ok(_) => Err("an endpoint that does not exist predicts".into()),
            Err(e) if e.status().is_some_and(|s| s.code.name() == "NOT_FOUND") => Ok(()),
            Err(e) => Err(format!("{e:?}").into()),
        }
    }

    fn compare(&self, found: &[Value]) -> Result<(), Failure> {
        if found != self.want {
            return Err(format!("predicted {found:?}, want {:?}", self.want).into());
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    if args.len() != 5 {
        return Err("usage: probe BASE_URL ENDPOINT INSTANCES PREDICTIONS".into());
    }
    // Wanted even where nothing is encrypted.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "there is a provider of cryptography already")?;
    let client = PredictionService::builder()
        .with_endpoint(&args[1])
        .with_credentials(anonymous::Builder::new().build())
        .build()
        .await?;
    let probe = Probe {
        client,
        endpoint: args[2].clone(),
        instances: serde_json::from_str(&args[3])?,
        want: serde_json::from_str(&args[4])?,
    };
    let checks = [
        ("predict", probe.predict().await),
        ("raw predict", probe.raw().await),
        ("an endpoint that does not exist", probe.missing().await),
    ];
    let (mut passed, mut failed) = (0, 0);
    for (name, result) in checks {
        match result {
            Ok(()) => {
                passed += 1;
                println!("ok    rust {name}");
            }
            Err(e) => {
                failed += 1;
                println!("fail  rust {name}: {e}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}
