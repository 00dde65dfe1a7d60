//! An ONNX file of rows in, rows out, run by Tract.

use std::path::Path;

use tract_onnx::prelude::*;

/// A model that is ready to run, and the version that it is.
pub struct Model {
    pub version: String,
    columns: usize,
    plan: Arc<TypedRunnableModel>,
}

impl Model {
    /// Reads a file and tries it on a row of zeros, so that what cannot run is not taken over.
    pub fn load(file: &Path, version: &str) -> Result<Model, String> {
        Model::read(file, version).and_then(|model| {
            model.run(&[vec![0.0; model.columns]])?;
            Ok(model)
        })
    }

    fn read(file: &Path, version: &str) -> Result<Model, String> {
        let told = |e| format!("{}: {e:#}", file.display());
        let typed = tract_onnx::onnx()
            .model_for_path(file)
            .and_then(|m| m.into_optimized())
            .map_err(told)?;
        let fact = typed.input_fact(0).map_err(told)?;
        let columns = match fact.shape.get(1).map(TDim::to_i64) {
            Some(Ok(columns)) if fact.rank() == 2 && typed.inputs.len() == 1 => columns as usize,
            _ => {
                return Err(format!(
                    "{}: it takes {fact:?}, and this program gives it rows of numbers",
                    file.display()
                ));
            }
        };
        let plan = typed.into_runnable().map_err(told)?;
        Ok(Model { version: version.to_owned(), columns, plan })
    }

    /// Gives the row of the first output for each row.
    pub fn run(&self, rows: &[Vec<f64>]) -> Result<Vec<Vec<f32>>, String> {
        if let Some((i, row)) = rows.iter().enumerate().find(|(_, row)| row.len() != self.columns) {
            return Err(format!(
                "instance {i} has {} numbers, and the model takes {}",
                row.len(),
                self.columns
            ));
        }
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: Vec<f32> = rows.iter().flatten().map(|&v| v as f32).collect();
        let input = tract_ndarray::Array2::from_shape_vec((rows.len(), self.columns), numbers)
            .map_err(|e| e.to_string())?;
        let output =
            self.plan.run(tvec!(Tensor::from(input).into())).map_err(|e| format!("{e:#}"))?;
        let scores = output[0].to_plain_array_view::<f32>().map_err(|e| format!("{e:#}"))?;
        Ok(scores.outer_iter().map(|row| row.iter().copied().collect()).collect())
    }
}
