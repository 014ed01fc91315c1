"""An id that nothing has, alike in every process: test names must not differ between them."""

ABSENT_ID = "01997c3a-5f7f-7c02-b3c5-00000000dead"
