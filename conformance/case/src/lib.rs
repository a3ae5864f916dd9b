// SPDX-License-Identifier: MIT OR Apache-2.0

//! The attribute `#[case]`: makes a function a case of the conformance suite.
//!
//! An attribute leaves the function an ordinary item, which `cargo fmt` and editors understand, and
//! lets the name stand once. Each use adds an entry to the distributed slice
//! `bus1_conformance::cases::CASES`, so no list has to be kept by hand.

use proc_macro::TokenStream;
use proc_macro2::{Ident, TokenStream as Tokens};
use quote::{format_ident, quote, ToTokens};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{parenthesized, parse_macro_input, Error, Expr, ItemFn, LitStr, Path, Result, Token};

/// Registers a function as a case of the suite.
///
/// The arguments are, in any order and separated by commas:
///
/// - `"FILE#ANCHOR"`, at least one: a requirement of the documents in `docs/` that the case checks;
/// - `kernel` or `embedded`: the only host on which the case runs;
/// - `alone`: nothing else may run in the process meanwhile;
/// - `needs(DEVICE, "MODULE")`: a device that has to be there, and the module that makes it;
/// - `each(PATH, ...)`: one case for each of these values, which the function takes as its second
///   argument; the last segment of the path, in lower case, is appended to the name.
///
/// # Errors
///
/// An argument that is not one of these is a compile error, and so is a case without a requirement.
#[proc_macro_attribute]
pub fn case(arguments: TokenStream, function: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as Arguments);
    let function = parse_macro_input!(function as ItemFn);
    expand(&arguments, &function).into()
}

/// The arguments of the attribute.
#[derive(Default)]
struct Arguments {
    requirements: Vec<LitStr>,
    host: Option<Ident>,
    alone: bool,
    needs: Option<Needs>,
    each: Vec<Path>,
}

/// A device beside the bus.
struct Needs {
    device: Expr,
    module: LitStr,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            if input.peek(LitStr) {
                arguments.requirements.push(input.parse()?);
            } else {
                arguments.option(input)?;
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        if arguments.requirements.is_empty() {
            return Err(input.error("a case names the requirement that it checks"));
        }
        Ok(arguments)
    }
}

impl Arguments {
    /// Parses an argument that is not a requirement.
    fn option(&mut self, input: ParseStream<'_>) -> Result<()> {
        let name: Ident = input.parse()?;
        match name.to_string().as_str() {
            "kernel" | "embedded" if self.host.is_none() => {
                let variant = if name == "kernel" {
                    "Kernel"
                } else {
                    "Embedded"
                };
                self.host = Some(Ident::new(variant, name.span()));
            }
            "alone" => self.alone = true,
            "needs" => {
                let content;
                parenthesized!(content in input);
                let device = content.parse()?;
                content.parse::<Token![,]>()?;
                let module = content.parse()?;
                self.needs = Some(Needs { device, module });
            }
            "each" => {
                let content;
                parenthesized!(content in input);
                let values = Punctuated::<Path, Token![,]>::parse_terminated(&content)?;
                self.each = values.into_iter().collect();
            }
            _ => {
                let known = "expected `kernel` or `embedded`, `alone`, `needs` or `each`";
                return Err(Error::new(name.span(), known));
            }
        }
        Ok(())
    }
}

fn expand(arguments: &Arguments, function: &ItemFn) -> Tokens {
    let name = &function.sig.ident;
    let entries: Tokens = if arguments.each.is_empty() {
        entry(
            arguments,
            function,
            &name.to_string(),
            &name.to_token_stream(),
        )
    } else {
        let values = arguments.each.iter();
        let entry_of = |value: &Path| {
            let last = value.segments.last().map(|segment| &segment.ident);
            let suffix = last
                .map(Ident::to_string)
                .unwrap_or_default()
                .to_lowercase();
            let run = quote!(|env| #name(env, #value));
            entry(arguments, function, &format!("{name}_{suffix}"), &run)
        };
        values.map(entry_of).collect()
    };
    quote! {
        #function
        #entries
    }
}

/// Returns the entry of one case in the distributed slice.
fn entry(arguments: &Arguments, function: &ItemFn, name: &str, run: &Tokens) -> Tokens {
    let Arguments {
        requirements,
        alone,
        ..
    } = arguments;
    let host = arguments
        .host
        .clone()
        .unwrap_or_else(|| format_ident!("All"));
    let needs = match &arguments.needs {
        None => quote!(None),
        Some(Needs { device, module }) => {
            quote!(Some(crate::cases::Needs { device: #device, module: #module }))
        }
    };
    let source = function.to_token_stream().to_string();
    quote! {
        const _: () = {
            #[::linkme::distributed_slice(crate::cases::CASES)]
            static CASE: crate::cases::Case = crate::cases::Case {
                name: #name,
                module: module_path!(),
                line: line!(),
                requirements: &[#(#requirements),*],
                on: crate::cases::On::#host,
                alone: #alone,
                needs: #needs,
                run: #run,
                source: #source,
            };
        };
    }
}
