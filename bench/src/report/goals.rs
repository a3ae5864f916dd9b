// SPDX-License-Identifier: MIT OR Apache-2.0

//! The goals of bus1, and whether it reaches them.

use std::fmt;

use super::data::Data;
use super::table::number;
use crate::row::Mode;
use crate::scenario::{growth, unicast};

/// One goal and its figure.
pub struct Goal {
    name: String,
    bound: Bound,
    limit: f64,
    unit: &'static str,
    figure: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    AtMost,
    AtLeast,
}

/// The outcome of a goal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is reached.
    Met,
    /// It is not.
    Missed,
    /// Its subject was not measured, or does not exist yet.
    Unmeasured,
}

impl Goal {
    fn new(
        name: impl Into<String>,
        bound: Bound,
        limit: f64,
        unit: &'static str,
        figure: Option<f64>,
    ) -> Self {
        Self {
            name: name.into(),
            bound,
            limit,
            unit,
            figure,
        }
    }

    /// Returns whether it is reached.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (self.figure, self.bound) {
            (None, _) => Verdict::Unmeasured,
            (Some(figure), Bound::AtMost) if figure <= self.limit => Verdict::Met,
            (Some(figure), Bound::AtLeast) if figure >= self.limit => Verdict::Met,
            (Some(_), _) => Verdict::Missed,
        }
    }

    /// Returns a figure in the goal's unit: ratios want places after the point.
    fn text(&self, value: f64) -> String {
        if self.unit == "×" {
            format!("{value:.2} ×")
        } else {
            format!("{} {}", number(value), self.unit)
        }
    }

    /// Returns the goal as a row of a table in Markdown.
    #[must_use]
    pub fn row(&self) -> String {
        let figure = self.figure.map(|figure| self.text(figure));
        format!(
            "| {} | {} | {} | {} |\n",
            self.name,
            self.wanted(),
            figure.unwrap_or_default(),
            self.verdict()
        )
    }

    fn wanted(&self) -> String {
        let sign = if self.bound == Bound::AtMost {
            "≤"
        } else {
            "≥"
        };
        format!("{sign} {}", self.text(self.limit))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Unmeasured => "not measured",
        })
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:12}  {}: ", self.verdict(), self.name)?;
        match self.figure {
            Some(figure) => write!(f, "{} (goal {})", self.text(figure), self.wanted()),
            None => write!(f, "goal {}", self.wanted()),
        }
    }
}

/// Medians of the mode that the goals are set in, for short.
struct Medians<'a>(&'a Data, Mode);

impl Medians<'_> {
    fn get(&self, scenario: &str, name: &str, param: u64) -> Option<f64> {
        Some(self.0.get(self.1, scenario, name, param)?.median)
    }

    /// Returns the quotient of two implementations.
    fn ratio(&self, scenario: &str, names: [&str; 2], param: u64) -> Option<f64> {
        let [ours, theirs] = names.map(|name| self.get(scenario, name, param));
        Some(ours? / theirs?)
    }

    /// Returns the quotient of two parameters.
    fn growth(&self, scenario: &str, name: &str, params: [u64; 2]) -> Option<f64> {
        let [from, to] = params.map(|param| self.get(scenario, name, param));
        Some(to? / from?)
    }

    /// Returns a figure that there is once, at any parameter.
    fn only(&self, scenario: &str, name: &str) -> Option<f64> {
        let param = *self
            .0
            .params(self.1, scenario)
            .iter()
            .find(|&&param| self.get(scenario, name, param).is_some())?;
        self.get(scenario, name, param)
    }
}

/// Returns every goal, with its figure if it was measured.
#[must_use]
pub fn goals(data: &Data) -> Vec<Goal> {
    let counted = Medians(data, Mode::Instructions);
    let native = Medians(data, Mode::Native);
    let mut goals = unicast_goals(&counted);
    goals.extend(multicast_goals(&counted));
    goals.extend(round_trip_goals(&counted));
    goals.extend(native_goals(&native));
    goals.extend(growth_goals(&counted));

    let users = ["many users", "one user"];
    let users = counted.ratio("users", users, 64);
    goals.push(Goal::new(
        "many users beside one",
        Bound::AtMost,
        1.05,
        "×",
        users,
    ));
    let idle = counted.only("idle peer", "bus1 raw");
    goals.push(Goal::new(
        "memory of an idle peer",
        Bound::AtMost,
        8192.0,
        "bytes",
        idle,
    ));
    let queued = counted
        .only("queued 64 B", "bus1 raw")
        .map(|all| all - 64.0);
    let name = "memory of a queued message of 64 B, beyond the payload";
    goals.push(Goal::new(name, Bound::AtMost, 320.0, "bytes", queued));
    goals
}

fn unicast_goals(counted: &Medians<'_>) -> Vec<Goal> {
    let mut goals = Vec::new();
    let sizes = [0, 64, 1 << 10, 64 << 10];
    let limits = [3300.0, 3700.0, 3900.0, 13_000.0];
    for (size, limit) in sizes.into_iter().zip(limits) {
        let label = super::table::label("unicast", size);
        let name = format!("unicast, {label}, 3 commands");
        let figure = counted.get("unicast", "bus1 raw", size);
        goals.push(Goal::new(
            name,
            Bound::AtMost,
            limit,
            "instructions",
            figure,
        ));
    }
    let limits = [2400.0, 2800.0, 3000.0, 12_000.0];
    for (size, limit) in sizes.into_iter().zip(limits) {
        let label = super::table::label("unicast", size);
        let mut name = format!("unicast, {label}, release folded");
        let best = best(&[unicast::FOLD, unicast::EXCHANGE], |way| {
            counted.get("unicast", way, size)
        });
        if let Some((_, way)) = best {
            name += &format!(" ({way})");
        }
        let figure = best.map(|(figure, _)| figure);
        goals.push(Goal::new(
            name,
            Bound::AtMost,
            limit,
            "instructions",
            figure,
        ));
    }
    for size in unicast::SIZES.map(|size| size as u64) {
        let label = super::table::label("unicast", size);
        let name = format!("unicast, {label}, against two SEQPACKET pairs");
        let figure = counted.ratio("unicast", ["bus1 raw", "two seqpackets"], size);
        goals.push(Goal::new(name, Bound::AtMost, 0.6, "×", figure));
    }
    goals
}

/// Returns the least figure of several ways to do the same, and which way it is.
fn best<'a>(ways: &[&'a str], figure: impl Fn(&str) -> Option<f64>) -> Option<(f64, &'a str)> {
    let figures = ways.iter().filter_map(|&way| Some((figure(way)?, way)));
    figures.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// Returns the goals of multicast, for the way to receive that costs the least. The others stand
/// beside it in the name.
fn multicast_goals(counted: &Medians<'_>) -> Vec<Goal> {
    let goal = |mut name: String, limit, n, figure: &dyn Fn(&str) -> Option<f64>| {
        let ways = [unicast::FOLD, "bus1 raw"];
        let best = best(&ways, |way| counted.get("multicast", way, n)).map(|(_, way)| way);
        if let Some(way) = best {
            let others = ways.iter().filter(|&&other| other != way);
            let others =
                others.filter_map(|other| Some(format!("; {other}: {:.2} ×", figure(other)?)));
            name += &format!(" ({way}{})", others.collect::<String>());
        }
        Goal::new(name, Bound::AtMost, limit, "×", best.and_then(figure))
    };
    let mut goals = Vec::new();
    for n in [16, 256] {
        let name = format!("multicast to {n}, per destination, against SEQPACKET");
        goals.push(goal(name, 0.6, n, &|way| {
            counted.ratio("multicast", [way, "seqpacket"], n)
        }));
    }
    let name = "multicast, change per destination from 16 to 256".to_owned();
    goals.push(goal(name, 0.05, 256, &|way| {
        Some((counted.growth("multicast", way, [16, 256])? - 1.0).abs())
    }));
    goals
}

fn round_trip_goals(counted: &Medians<'_>) -> Vec<Goal> {
    [
        ("SEQPACKET", "seqpacket", 0.75),
        ("Binder", "binder", 0.5),
        ("a blocking relay", "blocking relay", 0.4),
        ("an epoll relay", "epoll relay", 0.4),
        ("dbus-broker", "dbus-broker", 0.15),
    ]
    .into_iter()
    .map(|(title, name, limit)| {
        let figure = counted.ratio("round trip", ["bus1 exchange", name], 0);
        let name = format!("round trip by exchange, against {title}");
        Goal::new(name, Bound::AtMost, limit, "×", figure)
    })
    .collect()
}

fn native_goals(native: &Medians<'_>) -> Vec<Goal> {
    // While the other pair works, each costs `growth` times as much as a pair by itself.
    let scaling = native
        .growth("embedded, scaling", "bus1 raw", [1, 2])
        .map(|slower| 2.0 / slower);
    let name = "two pairs on two CPUs against one, embedded";
    let mut goals = vec![Goal::new(name, Bound::AtLeast, 1.95, "×", scaling)];
    for burst in ["bus1 bursts of 16", "bus1 bursts of 64"] {
        let slower = native.growth("embedded, scaling", burst, [1, 2]);
        let name = format!("a pair beside another of its user, {burst}, embedded");
        goals.push(Goal::new(name, Bound::AtMost, 1.05, "×", slower));
    }
    for size in [0, 64, 1 << 10, 4 << 10] {
        let scenario = "embedded, two threads";
        let figure = native.ratio(scenario, ["bus1 raw", "crossbeam"], size);
        let label = super::table::label(scenario, size);
        let name = format!("thread to thread, {label}, embedded, against crossbeam and a copy");
        goals.push(Goal::new(name, Bound::AtMost, 1.0, "×", figure));
    }
    goals
}

fn growth_goals(counted: &Medians<'_>) -> Vec<Goal> {
    [
        ("peers", growth::PEERS.as_slice()),
        ("handles", &growth::HANDLES),
        ("queued", &growth::QUEUED),
    ]
    .into_iter()
    .filter_map(|(what, params)| {
        let (&from, &to) = (params.first()?, params.last()?);
        let figure = counted.growth(&format!("growth: {what}"), "bus1 raw", [from, to]);
        let [from, to] = [from, to].map(|n| super::table::label("growth", n));
        let name = format!("cost of a message, {from} ⇒ {to} {what}");
        Some(Goal::new(name, Bound::AtMost, 1.15, "×", figure))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::CSV;
    use super::*;

    fn verdict_of(goals: &[Goal], name: &str) -> Verdict {
        let goal = goals.iter().find(|goal| goal.name == name);
        goal.unwrap_or_else(|| panic!("no goal {name}")).verdict()
    }

    #[test]
    fn goals_are_met_missed_or_not_measured() {
        let more = "instructions,unicast,bus1 raw,0,0,3301,instructions\n";
        let data = Data::read(format!("{CSV}{more}").as_bytes()).unwrap();
        let goals = goals(&data);
        let unicast = |size| verdict_of(&goals, &format!("unicast, {size}, 3 commands"));
        assert_eq!(unicast("64 B"), Verdict::Met);
        assert_eq!(unicast("0 B"), Verdict::Missed);
        assert_eq!(unicast("1 KiB"), Verdict::Unmeasured);
    }

    #[test]
    fn the_better_way_to_fold_the_release_is_taken_and_named() {
        let more = "instructions,unicast,bus1 fold,0,0,2500,instructions\n\
                    instructions,unicast,bus1 exchange,0,0,2300,instructions\n\
                    instructions,unicast,bus1 fold,64,0,2500,instructions\n";
        let data = Data::read(format!("{CSV}{more}").as_bytes()).unwrap();
        let goals = goals(&data);
        for (name, verdict) in [
            ("0 B, release folded (bus1 exchange)", Verdict::Met),
            ("64 B, release folded (bus1 fold)", Verdict::Met),
            ("1 KiB, release folded", Verdict::Unmeasured),
        ] {
            assert_eq!(verdict_of(&goals, &format!("unicast, {name}")), verdict);
        }
    }

    #[test]
    fn a_multicast_is_judged_by_its_best_way_and_names_the_other() {
        let more = "instructions,multicast,bus1 raw,16,0,700,instructions\n\
                    instructions,multicast,bus1 fold,16,0,590,instructions\n\
                    instructions,multicast,seqpacket,16,0,1000,instructions\n\
                    instructions,multicast,bus1 raw,256,0,700,instructions\n\
                    instructions,multicast,seqpacket,256,0,1000,instructions\n";
        let data = Data::read(format!("{CSV}{more}").as_bytes()).unwrap();
        let goals = goals(&data);
        for (name, verdict) in [
            (
                " to 16, per destination, against SEQPACKET (bus1 fold; bus1 raw: 0.70 ×)",
                Verdict::Met,
            ),
            (
                " to 256, per destination, against SEQPACKET (bus1 raw)",
                Verdict::Missed,
            ),
            // Of the way that costs the least with 256.
            (
                ", change per destination from 16 to 256 (bus1 raw)",
                Verdict::Met,
            ),
        ] {
            assert_eq!(verdict_of(&goals, &format!("multicast{name}")), verdict);
        }
    }

    #[test]
    fn scaling_wants_more_and_not_less() {
        let csv = |second: u32| {
            format!(
                "mode,scenario,implementation,param,repetition,value,unit\n\
                 native,\"embedded, scaling\",bus1 raw,1,0,100,ns\n\
                 native,\"embedded, scaling\",bus1 raw,2,0,{second},ns\n"
            )
        };
        for (second, verdict) in [(101, Verdict::Met), (150, Verdict::Missed)] {
            let data = Data::read(csv(second).as_bytes()).unwrap();
            let name = "two pairs on two CPUs against one, embedded";
            assert_eq!(verdict_of(&goals(&data), name), verdict);
        }
    }
}
