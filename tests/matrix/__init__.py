"""The matrix of families and heads: small models of every kind, compared with their libraries."""
