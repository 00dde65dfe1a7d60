//! The features step of examples/supplier-recommendation, as one static program.

mod csv;
mod examples;
mod features;
mod npz;
mod orders;
mod totals;

use std::path::Path;
use std::{env, fs, io, process};

use examples::Examples;
use features::Features;
use npz::Writer;
use orders::Orders;

const USAGE: &str = "usage: rust-features --orders CSV --purpose train|predict --positive NUMBER \
    --examples OUT.npz --candidates OUT.npz";

fn main() {
    if let Err(message) = run(env::args().skip(1).collect()) {
        eprintln!("rust-features: {message}");
        process::exit(1);
    }
}

struct Options {
    orders: String,
    predict: bool,
    positive: f32,
    examples: String,
    candidates: String,
}

fn options(words: Vec<String>) -> Result<Options, String> {
    let take = |name: &str| {
        let at = words.iter().position(|w| w == name);
        at.and_then(|n| words.get(n + 1)).cloned().ok_or(format!("{name} is missing\n{USAGE}"))
    };
    if words.len() != 10 {
        return Err(USAGE.to_string());
    }
    let positive = take("--positive")?;
    Ok(Options {
        orders: take("--orders")?,
        predict: match take("--purpose")?.as_str() {
            "train" => false,
            "predict" => true,
            other => return Err(format!("the purpose {other:?} is not train or predict")),
        },
        positive: positive.parse().map_err(|_| format!("{positive:?} is no number"))?,
        examples: take("--examples")?,
        candidates: take("--candidates")?,
    })
}

fn run(words: Vec<String>) -> Result<(), String> {
    let o = options(words)?;
    let text = fs::read_to_string(&o.orders).map_err(|e| format!("{}: {e}", o.orders))?;
    let table = csv::parse(&text).map_err(|e| format!("{}: {e}", o.orders))?;
    let orders =
        Orders::new(&table, o.positive, o.predict).map_err(|e| format!("{}: {e}", o.orders))?;
    if orders.buyers.is_empty() {
        return Err(format!("{}: it has no orders", o.orders));
    }
    let features = features::describe(&orders, o.positive, o.predict);
    write(&o.candidates, |path| candidates(path, &orders, &features))?;
    write(&o.examples, |path| examples(path, &features))?;
    let names = features.pair_names.len() + features.own_names.len();
    println!("{names} features, {} groups to train on", features.train.groups.len());
    Ok(())
}

fn write(name: &str, body: impl Fn(&Path) -> io::Result<()>) -> Result<(), String> {
    let path = Path::new(name);
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| body(path)).map_err(|e| format!("{name}: {e}"))
}

fn candidates(path: &Path, orders: &Orders, f: &Features) -> io::Result<()> {
    let (buyers, suppliers) = (orders.buyers.len(), orders.suppliers.len());
    let mut out = Writer::create(path)?;
    out.add(
        "pairs",
        "<f2",
        &[buyers, suppliers, f.pair_names.len()],
        &bytes(&f.pairs, |v| v.to_le_bytes()),
    )?;
    out.add("owns", "<f2", &[buyers, f.own_names.len()], &bytes(&f.owns, |v| v.to_le_bytes()))?;
    out.add("seen", "|b1", &[buyers, suppliers], &f.seen)?;
    out.add("wanted", "|b1", &[buyers, suppliers], &f.wanted)?;
    out.add("popularity", "<f4", &[suppliers], &bytes(&f.popularity, |v| v.to_le_bytes()))?;
    out.add_texts("buyers", &orders.buyers)?;
    out.add_texts("suppliers", &orders.suppliers)?;
    out.add_texts("titles", &orders.titles)?;
    out.add_texts("names", &names(f))?;
    out.finish()
}

fn examples(path: &Path, f: &Features) -> io::Result<()> {
    let mut out = Writer::create(path)?;
    out.add_texts("names", &names(f))?;
    let width = f.pair_names.len() + f.own_names.len();
    for (kind, Examples { x, y, groups }) in [("train", &f.train), ("validation", &f.validation)] {
        if groups.is_empty() {
            continue;
        }
        out.add(&format!("{kind}_x"), "<f2", &[y.len(), width], &bytes(x, |v| v.to_le_bytes()))?;
        out.add(&format!("{kind}_y"), "|i1", &[y.len()], &bytes(y, |v| v.to_le_bytes()))?;
        out.add(
            &format!("{kind}_group"),
            "<i8",
            &[groups.len()],
            &bytes(groups, |v| v.to_le_bytes()),
        )?;
    }
    out.finish()
}

fn names(f: &Features) -> Vec<String> {
    f.pair_names.iter().chain(&f.own_names).cloned().collect()
}

fn bytes<T: Copy, const N: usize>(values: &[T], encode: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|v| encode(*v)).collect()
}
