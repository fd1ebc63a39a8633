"""Pure values and rules: no input, no output, nothing imported from the floors above."""
