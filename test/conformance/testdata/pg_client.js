// node's pg: parameters, named statements, a failed transaction, LISTEN and NOTIFY, a pool.
const { Client, Pool } = require('pg');

async function main() {
  const connectionString = process.argv[2];
  const client = new Client({ connectionString });
  await client.connect();
  await client.query('CREATE TEMP TABLE t (id int PRIMARY KEY, doc jsonb, raw bytea)');
  for (let i = 0; i < 20; i++) {
    await client.query({ name: 'insert', text: 'INSERT INTO t VALUES ($1, $2, $3)', values: [i, { i }, Buffer.from([i, 0, 255])] });
  }
  const rows = (await client.query('SELECT id, doc, raw FROM t WHERE id = ANY($1) ORDER BY id', [[3, 4]])).rows;
  console.log('rows', JSON.stringify(rows));
  const several = await client.query('SELECT 1 AS one; SELECT 2 AS two');
  console.log('several', several.map((r) => r.rows[0]));
  await client.query('BEGIN');
  await client.query('SELECT 1/0').catch((error) => console.log('error', error.code, error.message));
  await client.query('SELECT 1').catch((error) => console.log('aborted', error.code));
  await client.query('ROLLBACK');
  await client.query('SELEC 1').catch((error) => console.log('syntax', error.code, error.message, error.position));
  const heard = new Promise((resolve) => client.on('notification', resolve));
  await client.query('LISTEN c');
  await client.query("NOTIFY c, 'payload'");
  console.log('notified', (await heard).payload);
  await client.end();

  const pool = new Pool({ connectionString, max: 5 });
  const sums = await Promise.all(Array.from({ length: 50 }, (_, i) => pool.query('SELECT $1::int + 1 AS n', [i])));
  console.log('pool', sums.reduce((sum, r) => sum + r.rows[0].n, 0));
  await pool.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
