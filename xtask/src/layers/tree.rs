// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modules of one crate, or of one folder of a crate, and the files that import each other.
//!
//! A path is followed through `use` lines to the file that defines its target. So an import of a
//! re-export is an import of the defining file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{ensure, Context, Result};

use super::floors::{self, Floor};
use super::imports::{Imports, Mention, Use};

/// Number of a module in its tree.
pub type Id = usize;

/// One file.
pub struct Module {
    pub name: String,
    /// The file, relative to the folder of the repository.
    pub file: PathBuf,
    pub parent: Option<Id>,
    pub children: BTreeMap<String, Id>,
    /// The list of floors in the file, if it has one.
    pub floors: Option<Vec<Floor>>,
    imports: Imports,
    /// Whether the file is outside the folder of the tree, where it belongs to another tree.
    foreign: bool,
}

/// One file that imports another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub from: Id,
    pub to: Id,
    /// The first line that does so.
    pub line: usize,
}

/// The root file is the module 0.
pub struct Tree {
    pub modules: Vec<Module>,
    /// The name by which the rest of the crate knows the root, if the root is not the crate's own.
    at: Option<&'static str>,
}

/// The target of a path.
#[derive(Clone, Copy)]
enum Target {
    Module(Id),
    /// Something in the file of this module.
    Item(Id),
}

/// Names that are being looked up, or were looked up in vain. None is looked up again, so a search
/// ends where `use` lines make a circle.
type Search = BTreeSet<(Id, String)>;

impl Tree {
    /// Reads a root file and all files below it.
    ///
    /// # Errors
    ///
    /// Fails if a file is missing or is not Rust, or if a list of floors cannot be read.
    pub fn read(repo: &Path, root: &Path, at: Option<&'static str>) -> Result<Self> {
        let mut tree = Self {
            modules: Vec::new(),
            at,
        };
        let folder = root.parent().context("a file is in a folder")?;
        tree.add(repo, folder, root.to_owned(), String::new(), None)?;
        Ok(tree)
    }

    fn add(
        &mut self,
        repo: &Path,
        folder: &Path,
        file: PathBuf,
        name: String,
        parent: Option<Id>,
    ) -> Result<Id> {
        let foreign =
            !file.starts_with(folder) || file.components().any(|part| part == Component::ParentDir);
        let path = repo.join(&file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", file.display()))?;
        let mut imports = Imports::default();
        let mut floors = None;
        if !foreign {
            let syntax = syn::parse_file(&text)
                .with_context(|| format!("{} is not Rust", file.display()))?;
            imports = Imports::of(&syntax);
            floors = floors::parse(&text).with_context(|| file.display().to_string())?;
        }
        let outer = std::mem::take(&mut imports.modules);
        let id = self.modules.len();
        self.modules.push(Module {
            name,
            file: file.clone(),
            parent,
            children: BTreeMap::new(),
            floors,
            imports,
            foreign,
        });
        for module in outer {
            let files = module.files(&file);
            let mut found = files.iter().filter(|file| repo.join(file).is_file());
            let child = found.next().with_context(|| {
                format!(
                    "{} declares {}, which has no file",
                    file.display(),
                    module.name
                )
            })?;
            let child = self.add(repo, folder, child.clone(), module.name.clone(), Some(id))?;
            let other = self.modules[id].children.insert(module.name.clone(), child);
            ensure!(
                other.is_none(),
                "{} declares {} twice",
                file.display(),
                module.name
            );
        }
        Ok(id)
    }

    /// Returns the modules above `id`, which is the first of them.
    pub fn path_up(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        std::iter::successors(Some(id), |&id| self.modules[id].parent)
    }

    fn is_within(&self, id: Id, ancestor: Id) -> bool {
        self.path_up(id).any(|above| above == ancestor)
    }

    /// Returns every import of a file by another, once.
    pub fn edges(&self) -> BTreeSet<Edge> {
        let mut first = BTreeMap::new();
        for from in 0..self.modules.len() {
            let module = &self.modules[from];
            let mut add = |target: Option<Target>, line: usize| {
                let to = match target {
                    Some(Target::Item(to)) if to != from => to,
                    // A file within a folder may name the folder on the way to another file.
                    Some(Target::Module(to)) if !self.is_within(from, to) => to,
                    _ => return,
                };
                first.entry((from, to)).or_insert(line);
            };
            for line in &module.imports.uses {
                let target = self.target(from, &line.path);
                if !self.is_reexport(from, line, target) {
                    add(target, line.line);
                }
            }
            for mention in &module.imports.mentions {
                add(self.mentioned(from, mention), mention.line);
            }
        }
        let edge = |((from, to), line)| Edge { from, to, line };
        first.into_iter().map(edge).collect()
    }

    /// Tells whether a `use` line of a root file re-exports a name of a module below it.
    fn is_reexport(&self, from: Id, line: &Use, target: Option<Target>) -> bool {
        let Some(Target::Module(to) | Target::Item(to)) = target else {
            return false;
        };
        line.public && to != from && self.is_within(to, from)
    }

    fn mentioned(&self, from: Id, mention: &Mention) -> Option<Target> {
        match self.target(from, &mention.path) {
            None if mention.is_macro => self.find_macro(&mention.path[0]),
            // A single word in code is a value or a type, and no module.
            Some(Target::Module(_)) if mention.path.len() == 1 => None,
            target => target,
        }
    }

    /// Returns the target of `path` in the file `from`, or `None` if it is outside the tree.
    fn target(&self, from: Id, path: &[String]) -> Option<Target> {
        self.resolve(from, path, &mut Search::new())
    }

    fn resolve(&self, from: Id, path: &[String], search: &mut Search) -> Option<Target> {
        let (mut target, rest) = self.start(from, path, search)?;
        for name in rest {
            let Target::Module(id) = target else {
                break;
            };
            let found = self.lookup(id, name, search);
            // The root has the exported macros of all files. A macro of this file makes any other
            // name that is not found.
            let found = found.or_else(|| self.find_macro(name).filter(|_| id == 0));
            target = found.unwrap_or(Target::Item(id));
        }
        Some(target)
    }

    /// Returns where a path begins, and the rest of it.
    fn start<'a>(
        &self,
        from: Id,
        path: &'a [String],
        search: &mut Search,
    ) -> Option<(Target, &'a [String])> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.enter(rest),
            "self" => Some((Target::Module(from), rest)),
            "super" => {
                let climbs = path.iter().take_while(|part| *part == "super").count();
                let rest = &path[climbs..];
                match self.path_up(from).nth(climbs) {
                    Some(id) => Some((Target::Module(id), rest)),
                    // Just above the root is the crate, if the root is not the crate's own.
                    None if self.path_up(from).count() == climbs => self.enter(rest),
                    None => None,
                }
            }
            name => Some((self.lookup(from, name, search)?, rest)),
        }
    }

    /// Follows a path from the crate's root into the tree.
    fn enter<'a>(&self, path: &'a [String]) -> Option<(Target, &'a [String])> {
        match (self.at, path.split_first()) {
            (None, _) => Some((Target::Module(0), path)),
            (Some(at), Some((first, rest))) if first == at => Some((Target::Module(0), rest)),
            _ => None,
        }
    }

    /// Returns the target of a name in the file of a module.
    fn lookup(&self, id: Id, name: &str, search: &mut Search) -> Option<Target> {
        let module = &self.modules[id];
        if module.foreign {
            return Some(Target::Item(id));
        }
        if let Some(&child) = module.children.get(name) {
            return Some(Target::Module(child));
        }
        if module.imports.items.contains(name) {
            return Some(Target::Item(id));
        }
        let step = (id, name.to_owned());
        if !search.insert(step.clone()) {
            return None;
        }
        let uses = &module.imports.uses;
        let named = uses
            .iter()
            .filter(|line| line.name.as_deref() == Some(name));
        let mut found = None;
        for line in named {
            found = found.or_else(|| self.resolve(id, &line.path, search));
        }
        for line in uses.iter().filter(|line| line.name.is_none()) {
            if found.is_none() {
                if let Some(Target::Module(all)) = self.resolve(id, &line.path, search) {
                    found = self.lookup(all, name, search);
                }
            }
        }
        if found.is_some() {
            search.remove(&step);
        }
        found
    }

    fn find_macro(&self, name: &str) -> Option<Target> {
        let defines = |module: &Module| module.imports.macros.contains(name);
        self.modules.iter().position(defines).map(Target::Item)
    }
}
