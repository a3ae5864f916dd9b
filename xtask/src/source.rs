// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads Rust sources: which items are compiled for tests only, and in which files modules are.

use std::path::{Path, PathBuf};

use proc_macro2::TokenTree;

/// A module that is declared in one file and written in another.
pub struct OuterModule {
    pub name: String,
    /// The value of its attribute `path`.
    path: Option<String>,
}

impl OuterModule {
    /// Returns the module that `item` declares, or `None` if its text is in `item` itself.
    pub fn declared_by(item: &syn::ItemMod) -> Option<Self> {
        item.content.is_none().then(|| Self {
            name: item.ident.to_string(),
            path: item.attrs.iter().find_map(path_attribute),
        })
    }

    /// Returns the files that the module can be in, given the file that declares it.
    pub fn files(&self, parent: &Path) -> Vec<PathBuf> {
        let dir = parent.parent().unwrap_or(Path::new(""));
        if let Some(path) = &self.path {
            return vec![dir.join(path)];
        }
        let stem = parent.file_stem().unwrap_or_default();
        let below = dir.join(stem);
        let dir = if ["mod", "lib", "main"].iter().any(|name| stem == *name) {
            dir
        } else {
            &below
        };
        vec![
            dir.join(format!("{}.rs", self.name)),
            dir.join(&self.name).join("mod.rs"),
        ]
    }
}

fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    let syn::Expr::Lit(literal) = &pair.value else {
        return None;
    };
    let syn::Lit::Str(text) = &literal.lit else {
        return None;
    };
    pair.path.is_ident("path").then(|| text.value())
}

/// Returns the attributes of an item.
pub fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::ForeignMod(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Tells whether one of the attributes is `#[cfg(test)]`, or a `cfg(all(...))` with `test` in it.
pub fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .any(|attribute| {
            let mut test = false;
            // A predicate of another form is not one for tests.
            let _ = attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("test") {
                    test = true;
                    Ok(())
                } else if meta.path.is_ident("all") {
                    meta.parse_nested_meta(|meta| {
                        test |= meta.path.is_ident("test");
                        skip_rest(meta.input)
                    })
                } else {
                    skip_rest(meta.input)
                }
            });
            test
        })
}

/// Leaves the rest of one predicate unread.
fn skip_rest(input: syn::parse::ParseStream) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(syn::Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}
