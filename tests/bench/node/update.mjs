// The same single update as the authorizer's, with the official SDK, bundled.
import { client } from './client.mjs';
import { allow, run } from './loop.mjs';

const n = (value) => ({ N: value });
const input = {
  TableName: process.env.COUNTERS_TABLE,
  Key: { pk: { S: 'node#0' } },
  UpdateExpression:
    'SET #n0 = if_not_exists(#n0, :zero) + :cost, #n1 = if_not_exists(#n1, :zero) + :cost, #n2 = if_not_exists(#n2, :zero) + :cost',
  ConditionExpression:
    'auth_epoch <= :epoch AND sealed < :bucket AND (attribute_not_exists(#p0) OR #p0 <= :p0) AND (attribute_not_exists(#n1) OR #n1 <= :w0)',
  ExpressionAttributeNames: {
    '#n0': 'u1795435200.api_calls',
    '#n1': 'w60000.29923920',
    '#n2': 'q1793491200.api_calls.pro-00000000',
    '#p0': 'w60000.29923919',
  },
  ExpressionAttributeValues: {
    ':epoch': n('1'), ':bucket': n('1795435200'), ':zero': n('0'), ':cost': n('1'), ':p0': n('22500'), ':w0': n('999999999'),
  },
  ReturnValues: 'ALL_NEW',
  ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
};

await client.getItem({ TableName: input.TableName, Key: input.Key }); // opens the connection during init
run(async (event) => {
  const { Attributes } = await client.updateItem(input);
  return allow(event.methodArn, { used: Attributes[input.ExpressionAttributeNames['#n1']].N });
});
