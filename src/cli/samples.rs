//! Flags of commands that look at samples: calibration and evaluation inputs.

use super::progress;
use clap::Args;
use dnnc::calibration::{Evaluation, SampleRunner, Samples};
use dnnc::{Error, Model, Options, tensors};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Args)]
pub struct SampleFlags {
    /// Calibration inputs (.npy, .npz, .pb or NAME=FILE, one for each input of the model), samples along the first dimension
    #[arg(long, value_name = "FILE")]
    calib: Vec<String>,
    /// What floats of calibration and evaluation inputs are divided by, e.g. 255 for bytes of images
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    scale: f32,
    /// Evaluation inputs, given like calibration inputs, to tell the accuracy before and after
    #[arg(long, value_name = "FILE", requires = "labels")]
    eval: Vec<String>,
    /// Their classes (.npy)
    #[arg(long, value_name = "FILE", requires = "eval")]
    labels: Option<PathBuf>,
}

impl SampleFlags {
    /// Runs networks on the calibration inputs.
    pub fn calibration(&self, model: &Model, options: &Options) -> Result<SampleRunner<'static>, Error> {
        if self.calib.is_empty() {
            return Err(Error::Usage("inputs are needed to see what weights do: give them with --calib".into()));
        }
        self.runner(&self.calib, model, options)
    }

    /// Evaluation inputs with their classes, where they are given.
    pub fn evaluation(&self, model: &Model, options: &Options) -> Result<Option<Evaluation<'static>>, Error> {
        let Some(labels) = &self.labels else { return Ok(None) };
        let labels = tensors::read(labels, &options.limits)?.to_f64s();
        Ok(Some(Evaluation { labels, runner: self.runner(&self.eval, model, options)? }))
    }

    fn runner(&self, files: &[String], model: &Model, options: &Options) -> Result<SampleRunner<'static>, Error> {
        let tensors = tensors::read_inputs(model.inputs(), files, &options.limits)?;
        let spinner = progress::counter();
        Ok(SampleRunner {
            samples: Samples::new(model.inputs(), &tensors, self.scale)?,
            options: options.clone(),
            progress: Box::new(move |what| {
                spinner.set_message(what.to_string());
                spinner.tick();
            }),
        })
    }
}

/// A node that stays as it is, and why.
#[derive(Serialize)]
pub struct Kept {
    pub node: String,
    pub reason: &'static str,
}
