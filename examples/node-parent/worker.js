// A worker that takes too long, and does not end when it is asked to.
'use strict';

process.on('SIGTERM', () => {});
console.log('ready');
setInterval(() => {}, 1000);
