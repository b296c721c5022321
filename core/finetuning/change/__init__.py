"""How change between two dates is learned."""
