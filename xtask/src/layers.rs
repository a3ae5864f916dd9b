// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that no source file imports one of a higher floor.
//!
//! The root file of a tree lists its modules, bottom to top. The root file of a folder within may
//! do so as well. `docs/testing.md` has the format. In a folder without a list any file may import
//! any other, and only a circle fails. An import is judged in one folder: the lowest that has both
//! files in it, where each counts as the module of that folder that it is in. The root file of a
//! folder counts as a module of its own, above those that it uses.

mod floors;
mod imports;
mod tree;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::repo;
use floors::Floor;
use tree::{Edge, Id, Tree};

/// The root file of a tree that is checked, and the name of the tree in its crate if it is not the
/// whole crate.
struct Root {
    file: &'static str,
    at: Option<&'static str>,
}

const ROOTS: &[Root] = &[
    Root {
        file: "core/src/bus/mod.rs",
        at: Some("bus"),
    },
    Root {
        file: "kernel/main.rs",
        at: None,
    },
    Root {
        file: "embedded/src/lib.rs",
        at: None,
    },
    Root {
        file: "bus1/src/lib.rs",
        at: None,
    },
];

/// Checks every tree and prints the faults; the exit status tells whether there is one.
pub fn run() -> Result<ExitCode> {
    let mut ok = true;
    for root in ROOTS {
        let tree = Tree::read(repo::dir(), Path::new(root.file), root.at)?;
        let edges = tree.edges();
        let mut faults = check(&tree, &edges);
        if tree.modules[0].floors.is_none() {
            faults.push(format!("{} has no list of its floors", root.file));
        }
        let (files, imports) = (tree.modules.len(), edges.len());
        println!("{:<24}{files:>4} files{imports:>5} imports", root.file);
        for fault in &faults {
            eprintln!("error: {fault}");
        }
        ok &= faults.is_empty();
    }
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The imports within one folder: the first of each pair of its modules. The folder's own file is
/// the module with the folder's number.
type Pairs = BTreeMap<(Id, Id), Edge>;

/// Returns the faults of a tree.
fn check(tree: &Tree, edges: &BTreeSet<Edge>) -> Vec<String> {
    let mut folders: BTreeMap<Id, Pairs> = BTreeMap::new();
    for &edge in edges {
        let (folder, pair) = place(tree, edge);
        folders
            .entry(folder)
            .or_default()
            .entry(pair)
            .or_insert(edge);
    }
    let mut faults = Vec::new();
    for (folder, module) in tree.modules.iter().enumerate() {
        let mut pairs = folders.remove(&folder).unwrap_or_default();
        if let Some(floors) = &module.floors {
            faults.extend(check_list(tree, folder, floors));
            faults.extend(check_floors(tree, floors, &mut pairs));
        }
        faults.extend(circles(tree, folder, &pairs));
    }
    faults
}

/// Returns the folder in which an import is judged, and the two modules of it that are concerned.
fn place(tree: &Tree, edge: Edge) -> (Id, (Id, Id)) {
    let down = |id: Id| {
        let mut path: Vec<Id> = tree.path_up(id).collect();
        path.reverse();
        path
    };
    let (from, to) = (down(edge.from), down(edge.to));
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let folder = from[common - 1];
    let unit = |path: &[Id]| path.get(common).copied().unwrap_or(folder);
    (folder, (unit(&from), unit(&to)))
}

/// Compares the names in a list with the modules that are there.
fn check_list(tree: &Tree, folder: Id, floors: &[Floor]) -> Vec<String> {
    let module = &tree.modules[folder];
    let file = module.file.display();
    let mut faults = Vec::new();
    let mut listed = BTreeSet::new();
    for name in floors.iter().flat_map(|floor| &floor.names) {
        if !module.children.contains_key(name) {
            faults.push(format!(
                "{file} lists the floor of {name}, which it does not declare"
            ));
        }
        if !listed.insert(name) {
            faults.push(format!("{file} lists {name} twice"));
        }
    }
    for name in module.children.keys().filter(|name| !listed.contains(name)) {
        faults.push(format!(
            "{file} declares {name}, which is in no line of its list of floors"
        ));
    }
    faults
}

/// Returns the imports that the list forbids, and takes them out of `pairs`, as well as those that
/// it allows although they may make a circle.
fn check_floors(tree: &Tree, floors: &[Floor], pairs: &mut Pairs) -> Vec<String> {
    let floor_of = |id: Id| {
        let name = &tree.modules[id].name;
        floors.iter().position(|floor| floor.names.contains(name))
    };
    let mut faults = Vec::new();
    let mut together: BTreeMap<usize, Pairs> = BTreeMap::new();
    pairs.retain(|&(from, to), &mut edge| {
        let (Some(low), Some(high)) = (floor_of(from), floor_of(to)) else {
            return true;
        };
        if low == high && floors[low].together {
            together.entry(low).or_default().insert((from, to), edge);
            return false;
        }
        if low > high {
            return true;
        }
        let why = match low == high {
            true => "which is on the same floor",
            false => "which is on a higher floor",
        };
        let names = [from, to].map(|id| &tree.modules[id].name);
        faults.push(format!(
            "{}, {why}: {} may not import {}",
            describe(tree, edge),
            names[0],
            names[1]
        ));
        false
    });
    for (number, floor) in floors.iter().enumerate() {
        if !floor.together {
            continue;
        }
        let pairs = together.remove(&number).unwrap_or_default();
        let in_circle = |name: &&String| {
            let mut starts = pairs.keys().map(|&(from, _)| from);
            let start = starts.find(|&from| tree.modules[from].name == **name);
            start.is_some_and(|start| circle_of(start, &pairs).is_some())
        };
        for name in floor.names.iter().filter(|name| !in_circle(name)) {
            faults.push(format!(
                "{name} is in no circle with the modules that it is said to be together with: give \
                 it a floor of its own"
            ));
        }
    }
    faults
}

/// Returns a description of each circle among the modules of a folder: the shortest one, then the
/// shortest of what is left without its first import, and so on.
fn circles(tree: &Tree, folder: Id, pairs: &Pairs) -> Vec<String> {
    let mut pairs = pairs.clone();
    let mut faults = Vec::new();
    while let Some(circle) = shortest_circle(&pairs) {
        let name = |id: Id| {
            let module = &tree.modules[id];
            match id == folder {
                true => module
                    .file
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                false => module.name.clone(),
            }
        };
        let names: Vec<String> = circle
            .iter()
            .chain(&circle[..1])
            .map(|&id| name(id))
            .collect();
        let mut fault = format!(
            "a circle in {}: {}",
            tree.modules[folder].file.display(),
            names.join(" -> ")
        );
        for (at, &from) in circle.iter().enumerate() {
            let to = circle[(at + 1) % circle.len()];
            fault += &format!("\n  {}", describe(tree, pairs[&(from, to)]));
        }
        faults.push(fault);
        pairs.remove(&(circle[0], circle[1 % circle.len()]));
    }
    faults
}

/// Returns the modules of a circle, each of which imports the next one.
fn shortest_circle(pairs: &Pairs) -> Option<Vec<Id>> {
    let starts: BTreeSet<Id> = pairs.keys().map(|&(from, _)| from).collect();
    let circles = starts
        .into_iter()
        .filter_map(|start| circle_of(start, pairs));
    circles.min_by_key(Vec::len)
}

/// Returns the shortest circle that `start` is in, by a breadth-first search.
fn circle_of(start: Id, pairs: &Pairs) -> Option<Vec<Id>> {
    let mut before: BTreeMap<Id, Id> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for &(_, to) in pairs.keys().filter(|&&(from, _)| from == at) {
            if to == start {
                let back = std::iter::successors(Some(at), |id| before.get(id).copied());
                let mut circle: Vec<Id> = back.collect();
                circle.reverse();
                return Some(circle);
            }
            if seen.insert(to) {
                before.insert(to, at);
                queue.push_back(to);
            }
        }
    }
    None
}

fn describe(tree: &Tree, edge: Edge) -> String {
    let [from, to] = [edge.from, edge.to].map(|id| tree.modules[id].file.display());
    format!("{from}:{} imports {to}", edge.line)
}

#[cfg(test)]
mod tests;
