//! The order history with numbers for buyers and suppliers, and what the table says
//! about them.

use std::collections::{BTreeSet, HashMap};

use crate::csv::{Table, missing};

const DAY: f64 = 86_400.0;

#[derive(Clone, Copy, PartialEq)]
pub enum Part {
    Train,
    Validation,
    Test,
}

/// Orders by buyer and time. Rows of buyer b are first[b]..first[b + 1].
pub struct Orders {
    pub buyers: Vec<String>,
    pub suppliers: Vec<String>,
    pub titles: Vec<String>,
    pub first: Vec<usize>,
    pub buyer: Vec<usize>,
    pub supplier: Vec<usize>,
    pub outcome: Vec<f32>,
    pub liked: Vec<bool>,
    pub day: Vec<usize>,
    pub part: Vec<Part>,
    pub about_suppliers: Suppliers,
    pub about_buyers: Buyers,
}

/// Columns supplier_*: numbers stay, texts become tags.
#[derive(Default)]
pub struct Suppliers {
    pub number_names: Vec<String>,
    pub numbers: Vec<Vec<f32>>, // by column, then supplier
    pub tags: Vec<Vec<usize>>,  // by supplier: positions of its tags
    pub tag_count: usize,
}

/// Columns buyer_*: numbers as they are and in bands, texts as groups.
#[derive(Default)]
pub struct Buyers {
    pub names: Vec<String>,
    pub values: Vec<Vec<f32>>, // by column, then buyer
    pub groups: Vec<Vec<usize>>,
}

impl Orders {
    pub fn new(table: &Table, positive: f32, predict: bool) -> Result<Self, String> {
        let (buyer, supplier) = (table.need("buyer")?, table.need("supplier")?);
        let outcome = numbers(table, table.need("outcome")?)?;
        let time = numbers(table, table.need("time")?)?;
        let mut order: Vec<usize> = (0..table.rows.len()).collect();
        order.sort_by(|a, b| {
            let names = table.rows[*a][buyer].cmp(&table.rows[*b][buyer]);
            names.then(time[*a].total_cmp(&time[*b])) // stable
        });
        let start = time.iter().copied().fold(f64::INFINITY, f64::min);
        let part = table.column("part").filter(|_| !predict);
        let mut orders = Self {
            buyers: Vec::new(),
            suppliers: Vec::new(),
            titles: Vec::new(),
            first: Vec::new(),
            buyer: Vec::new(),
            supplier: Vec::new(),
            outcome: order.iter().map(|r| outcome[*r] as f32).collect(),
            liked: order.iter().map(|r| outcome[*r] as f32 >= positive).collect(),
            day: order.iter().map(|r| ((time[*r] - start) / DAY).floor() as usize).collect(),
            part: Vec::new(),
            about_suppliers: Suppliers::default(),
            about_buyers: Buyers::default(),
        };
        let mut known = HashMap::new();
        let (mut buyer_rows, mut supplier_rows) = (Vec::new(), Vec::new());
        for (n, r) in order.iter().enumerate() {
            let row = &table.rows[*r];
            if orders.buyers.last() != Some(&row[buyer]) {
                orders.buyers.push(row[buyer].clone());
                orders.first.push(n);
                buyer_rows.push(*r);
            }
            let next = known.len();
            let index = *known.entry(row[supplier].as_str()).or_insert(next);
            if index == next {
                orders.suppliers.push(row[supplier].clone());
                supplier_rows.push(*r);
            }
            orders.buyer.push(orders.buyers.len() - 1);
            orders.supplier.push(index);
            orders.part.push(match part.map(|p| row[p].as_str()) {
                Some("test") => Part::Test,
                Some("validation") => Part::Validation,
                _ => Part::Train,
            });
        }
        orders.first.push(order.len());
        let titled = table.column("supplier_title").unwrap_or(supplier);
        orders.titles = supplier_rows.iter().map(|r| table.rows[*r][titled].clone()).collect();
        orders.about_suppliers = Suppliers::new(table, &supplier_rows);
        orders.about_buyers = Buyers::new(table, &buyer_rows);
        Ok(orders)
    }
}

impl Suppliers {
    fn new(table: &Table, rows: &[usize]) -> Self {
        let mut about = Self { tags: vec![Vec::new(); rows.len()], ..Self::default() };
        for (at, name) in table.header.iter().enumerate() {
            if !name.starts_with("supplier_") || name == "supplier_title" {
                continue;
            }
            if numeric(table, at) {
                about.number_names.push(name.clone());
                about.numbers.push(filled(table, rows, at));
                continue;
            }
            let cells: Vec<&str> = rows.iter().map(|r| text(table, *r, at)).collect();
            let words: BTreeSet<&str> = cells.iter().flat_map(|c| tags(c)).collect();
            let place: HashMap<&str, usize> =
                words.iter().enumerate().map(|(n, w)| (*w, about.tag_count + n)).collect();
            for (mine, cell) in about.tags.iter_mut().zip(&cells) {
                let unique: BTreeSet<usize> = tags(cell).map(|w| place[w]).collect();
                mine.extend(unique);
            }
            about.tag_count += words.len();
        }
        about
    }
}

impl Buyers {
    fn new(table: &Table, rows: &[usize]) -> Self {
        let mut about = Self::default();
        for (at, name) in table.header.iter().enumerate() {
            if !name.starts_with("buyer_") {
                continue;
            }
            about.names.push(name.clone());
            if numeric(table, at) {
                let values = filled(table, rows, at);
                let bands = [0.2, 0.4, 0.6, 0.8].map(|q| quantile(&values, q));
                let band = |v: &f32| bands.iter().filter(|b| **b < f64::from(*v)).count();
                about.groups.push(values.iter().map(band).collect());
                about.values.push(values);
                continue;
            }
            let cells: Vec<&str> = rows.iter().map(|r| text(table, *r, at)).collect();
            let words: Vec<&str> =
                cells.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
            let codes: Vec<usize> =
                cells.iter().map(|c| words.binary_search(c).unwrap_or_default()).collect();
            about.values.push(codes.iter().map(|c| *c as f32).collect());
            about.groups.push(codes);
        }
        about
    }
}

fn tags(cell: &str) -> impl Iterator<Item = &str> {
    cell.split(' ').filter(|w| !w.is_empty())
}

fn text(table: &Table, row: usize, at: usize) -> &str {
    let cell = table.rows[row][at].as_str();
    if missing(cell) { "" } else { cell }
}

/// A column of numbers, in which nothing may be missing.
fn numbers(table: &Table, at: usize) -> Result<Vec<f64>, String> {
    let cell = |(n, row): (usize, &Vec<String>)| {
        let value = row[at].parse::<f64>().ok().filter(|v| v.is_finite());
        value.ok_or_else(|| format!("row {}: {:?} is no {}", n + 1, row[at], table.header[at]))
    };
    table.rows.iter().enumerate().map(cell).collect()
}

fn numeric(table: &Table, at: usize) -> bool {
    table.rows.iter().all(|r| missing(&r[at]) || r[at].parse::<f64>().is_ok())
}

/// Numbers of some rows; a missing one is the median of the others.
fn filled(table: &Table, rows: &[usize], at: usize) -> Vec<f32> {
    let cells: Vec<Option<f64>> = rows.iter().map(|r| table.rows[*r][at].parse().ok()).collect();
    let cells: Vec<Option<f64>> = cells.into_iter().map(|c| c.filter(|v| !v.is_nan())).collect();
    let mut known: Vec<f64> = cells.iter().flatten().copied().collect();
    known.sort_by(f64::total_cmp);
    let n = known.len();
    let median = if n == 0 { f64::NAN } else { (known[(n - 1) / 2] + known[n / 2]) / 2.0 };
    cells.into_iter().map(|c| c.unwrap_or(median) as f32).collect()
}

/// numpy's default method: linear between the two nearest.
fn quantile(values: &[f32], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let at = q * (sorted.len() - 1) as f64;
    let low = at.floor() as usize;
    let high = (low + 1).min(sorted.len() - 1);
    let (a, b, part) = (f64::from(sorted[low]), f64::from(sorted[high]), at - low as f64);
    if part >= 0.5 { b - (b - a) * (1.0 - part) } else { a + (b - a) * part }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv::parse;

    const TABLE: &str = "buyer,supplier,outcome,time,buyer_age,buyer_job,supplier_year,supplier_genres,part\n\
        b,y,5,172800,30,cook,1990,Drama War,test\n\
        a,x,4,0,20,,1980,War,train\n\
        b,x,3,90000,30,cook,1980,War,train\n\
        a,z,1,86400,20,,,,validation\n";

    #[test]
    fn orders_by_buyer_and_time() {
        let o = Orders::new(&parse(TABLE).unwrap(), 4.0, false).unwrap();
        assert_eq!(
            (o.buyers, o.suppliers),
            (vec!["a".into(), "b".into()], vec!["x".into(), "z".into(), "y".into()])
        );
        assert_eq!((o.first, o.supplier), (vec![0, 2, 4], vec![0, 1, 0, 2]));
        assert_eq!((o.day, o.liked), (vec![0, 1, 1, 2], vec![true, false, false, true]));
        assert!(o.part == [Part::Train, Part::Validation, Part::Train, Part::Test]);
        let s = o.about_suppliers;
        assert_eq!(
            (s.numbers, s.tags, s.tag_count),
            (vec![vec![1980.0, 1985.0, 1990.0]], vec![vec![1], vec![], vec![0, 1]], 2)
        );
        assert_eq!(o.about_buyers.groups, [[0, 4], [0, 1]]);
    }

    #[test]
    fn predicting_knows_no_parts() {
        let o = Orders::new(&parse(TABLE).unwrap(), 4.0, true).unwrap();
        assert!(o.part == [Part::Train; 4]);
    }

    #[test]
    fn refuses_orders_without_a_number() {
        for bad in ["buyer,supplier,outcome\n", "buyer,supplier,outcome,time\na,b,good,1\n"] {
            assert!(Orders::new(&parse(bad).unwrap(), 4.0, false).is_err());
        }
    }

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.4), 1.8);
        assert_eq!(quantile(&[7.0], 0.8), 7.0);
    }
}
