// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names in one source file: its `use` lines, the paths in its code and in the arguments of its
//! macros, and its own definitions. Items that are compiled for tests only do not count.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::source::{attributes, is_test, OuterModule};

/// One name that a `use` line brings in.
#[derive(Debug)]
pub struct Use {
    pub path: Vec<String>,
    /// The name that it gets in this file, or `None` for `*`.
    pub name: Option<String>,
    /// Whether the line has a visibility, and so re-exports the name.
    pub public: bool,
    pub line: usize,
}

/// A path in code.
#[derive(Debug)]
pub struct Mention {
    pub path: Vec<String>,
    /// Whether it names a macro, which may be in scope without a path.
    pub is_macro: bool,
    pub line: usize,
}

/// The names that one file imports, mentions and defines.
#[derive(Default)]
pub struct Imports {
    pub uses: Vec<Use>,
    pub mentions: Vec<Mention>,
    /// Names of the items that the file defines.
    pub items: BTreeSet<String>,
    /// Names of its `macro_rules!`.
    pub macros: BTreeSet<String>,
    pub modules: Vec<OuterModule>,
    /// How many modules within the file are open.
    depth: usize,
}

impl Imports {
    /// Reads a file.
    pub fn of(file: &syn::File) -> Self {
        let mut imports = Self::default();
        imports.visit_file(file);
        imports
    }

    /// Returns a path as the file's own module would write it, or `None` if it names another crate
    /// or the file itself.
    fn outward(&self, mut path: Vec<String>, other_crate: bool) -> Option<Vec<String>> {
        if other_crate {
            return None;
        }
        if self.depth > 0 && path.len() > 1 && path[0] == "self" {
            // `self::super::x` climbs as `super::x` does.
            path.remove(0);
        }
        let climbs = path.iter().take_while(|part| *part == "super").count();
        path.drain(..climbs.min(self.depth));
        (!path.is_empty()).then_some(path)
    }

    fn mention(&mut self, path: Vec<String>, other_crate: bool, is_macro: bool, line: usize) {
        if let Some(path) = self.outward(path, other_crate) {
            self.mentions.push(Mention {
                path,
                is_macro,
                line,
            });
        }
    }

    /// Adds each leaf of a `use` line.
    fn add_use(&mut self, tree: &syn::UseTree, before: &[String], item: &syn::ItemUse) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (path, name) = match tree {
            syn::UseTree::Path(path) => {
                return self.add_use(&path.tree, &with(&path.ident), item);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, before, item);
                }
                return;
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                (before.to_vec(), before.last().cloned())
            }
            syn::UseTree::Name(name) => (with(&name.ident), Some(name.ident.to_string())),
            syn::UseTree::Rename(rename) if rename.ident == "self" => {
                (before.to_vec(), Some(rename.rename.to_string()))
            }
            syn::UseTree::Rename(rename) => (with(&rename.ident), Some(rename.rename.to_string())),
            syn::UseTree::Glob(_) => (before.to_vec(), None),
        };
        let Some(path) = self.outward(path, item.leading_colon.is_some()) else {
            return;
        };
        self.uses.push(Use {
            path,
            name,
            public: !matches!(item.vis, syn::Visibility::Inherited),
            line: tree.span().start().line,
        });
    }

    /// Adds the paths in a macro's arguments, which are no syntax yet.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path = Vec::new();
        let mut line = 0;
        // Whether the next word continues the path, or is no path: a field, a lifetime.
        let mut joined = false;
        let mut other = false;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(word) => {
                    if !joined {
                        self.mention(std::mem::take(&mut path), false, false, line);
                        line = word.span().start().line;
                    }
                    if !other {
                        path.push(word.to_string());
                    }
                    (joined, colons) = (false, 0);
                    other = false;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => {
                    colons += 1;
                    joined = colons == 2 && !path.is_empty();
                    // `::name` is of another crate.
                    other = colons == 2 && path.is_empty();
                }
                TokenTree::Punct(mark) => {
                    self.mention(std::mem::take(&mut path), false, false, line);
                    other = matches!(mark.as_char(), '.' | '\'');
                    (joined, colons) = (false, 0);
                }
                TokenTree::Group(group) => {
                    if joined && group.delimiter() == Delimiter::Brace {
                        // A group of a `use` line in a macro: one path for each word.
                        for token in group.stream() {
                            if let TokenTree::Ident(word) = token {
                                let line = word.span().start().line;
                                let full = [&path[..], &[word.to_string()]].concat();
                                self.mention(full, false, false, line);
                            }
                        }
                        path.clear();
                    } else {
                        self.mention(std::mem::take(&mut path), false, false, line);
                        self.add_tokens(group.stream());
                    }
                    (joined, colons) = (false, 0);
                    other = false;
                }
                TokenTree::Literal(_) => {
                    self.mention(std::mem::take(&mut path), false, false, line);
                    (joined, colons) = (false, 0);
                    other = false;
                }
            }
        }
        self.mention(path, false, false, line);
    }

    fn define(&mut self, item: &syn::Item) {
        let name = match item {
            syn::Item::Const(item) => &item.ident,
            syn::Item::Enum(item) => &item.ident,
            syn::Item::Fn(item) => &item.sig.ident,
            syn::Item::Mod(item) if item.content.is_some() => &item.ident,
            syn::Item::Static(item) => &item.ident,
            syn::Item::Struct(item) => &item.ident,
            syn::Item::Trait(item) => &item.ident,
            syn::Item::Type(item) => &item.ident,
            syn::Item::Union(item) => &item.ident,
            _ => return,
        };
        self.items.insert(name.to_string());
    }
}

fn parts(path: &syn::Path) -> Vec<String> {
    let parts = path.segments.iter();
    parts.map(|part| part.ident.to_string()).collect()
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if is_test(attributes(item)) {
            return;
        }
        self.define(item);
        match item {
            syn::Item::Mod(module) => match OuterModule::declared_by(module) {
                Some(outer) => self.modules.push(outer),
                None => {
                    self.depth += 1;
                    visit::visit_item(self, item);
                    self.depth -= 1;
                }
            },
            syn::Item::Use(line) => self.add_use(&line.tree, &[], line),
            syn::Item::Macro(definition) => {
                if let Some(name) = &definition.ident {
                    self.macros.insert(name.to_string());
                }
                visit::visit_item(self, item);
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    // An attribute imports nothing.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let line = path.span().start().line;
        self.mention(parts(path), path.leading_colon.is_some(), false, line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let line = call.path.span().start().line;
        let other_crate = call.path.leading_colon.is_some();
        self.mention(parts(&call.path), other_crate, true, line);
        self.add_tokens(call.tokens.clone());
    }
}
