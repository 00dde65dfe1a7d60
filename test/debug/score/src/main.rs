//! Scores suppliers by the trend of their delays: reads `supplier,days,days,...` lines
//! and writes `supplier,score`. The bug is in `trend`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

/// Notes in the book, also when it unwinds, that this program ran and for how long.
struct Shift<'a> {
    book: &'a str,
    began: Instant,
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        let line = format!("score {}\n", self.began.elapsed().as_millis());
        let file = OpenOptions::new().append(true).create(true).open(self.book);
        file.and_then(|mut f| f.write_all(line.as_bytes())).expect("the book");
    }
}

/// Mean step from one delivery to the next, in days.
fn trend(days: &[f64]) -> f64 {
    let mut sum = 0.0;
    for i in 0..days.len() {
        sum += days[i + 1] - days[i];
    }
    sum / (days.len() - 1) as f64
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, rows, work_ms, book, out] = words.as_slice() else {
        panic!("usage: score ROWS WORK_MS BOOK OUT");
    };
    let _shift = Shift { book, began: Instant::now() };
    let text = fs::read_to_string(rows).expect("rows");
    println!("scoring {} suppliers", text.lines().count());
    thread::sleep(Duration::from_millis(work_ms.parse().expect("a number of milliseconds")));
    let mut scores = String::new();
    for line in text.lines() {
        let mut fields = line.split(',');
        let supplier = fields.next().expect("a supplier");
        let days: Vec<f64> = fields.map(|f| f.parse().expect("days")).collect();
        scores += &format!("{supplier},{:.2}\n", trend(&days));
    }
    fs::write(out, scores).expect("out");
}
