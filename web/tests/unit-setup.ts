// Before every unit test file: xterm's width tables read a Buffer's memory from its beginning, so a
// Buffer has to have its memory for itself.

Buffer.poolSize = 0;
